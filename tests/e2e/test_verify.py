"""`--verify`: calls made on both sides and compared; what differs is found and named, what does not is not."""

import re
import signal
import sys

import pytest
from harness import TARGETS, Proxy, Snapshot, code_of, poll_until, progress, status

LIBRARY = "libverified.so"
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture
def target(build):
    return build("verified", library="verified")


def verify(work, argv, profile, *extra, **options):
    """The split run, all of whose calls are verified, and which does what the program does whole."""
    return work.same(argv, profile, "--verify", 1, *extra, **options)


def check_equal(result, name, calls):
    split = result.split(name)
    assert (split["verified"], split["diverged"], split["unverified"]) == (calls, 0, {}), split
    assert split["calls"] == {"remote": 0, "local": calls} and split["local_reasons"] == {"verify": calls}


def check_differs(result, name, pattern):
    split = result.split(name)
    assert split["diverged"] == split["verified"] > 0 and re.search(pattern, split["difference"]), split
    assert f"{LIBRARY}:{name}: a verified call DIVERGED: {split['difference']}" in result.stderr


@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
def test_same_results(target, work, profile, monkeypatch, tracking):
    """Arrays filled and summed, callbacks, new mappings that lie elsewhere on each side, mappings that go."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    result = verify(work, [target, "same", 6], profile("verified"), "--tracking", tracking)
    for name in ("same_sum", "same_fill", "same_mapping", "same_unmap"):
        check_equal(result, name, 6)
    # The first sort asks how much memory there is.
    assert result.split("same_sort")["verified"] == 5
    assert result.split("same_sort")["unverified"] == {"syscall:sysinfo": 1}


def test_dead_stack(target, work, profile):
    """What a call leaves below the stack pointer is nobody's."""
    check_equal(verify(work, [target, "dead", 4], profile("verified")), "ticks_dead", 4)


@pytest.mark.parametrize(("mode", "name"), [("home_only", "home_only"), pytest.param("late", "late_only", marks=pytest.mark.slow)])
def test_the_mirror_forgets(target, work, profile, monkeypatch, mode, name):
    """Of a verified call nothing is left in the mirror: not in pages that it wrote there, nor in those written at home alone."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    result = work.same([target, mode, 6], profile("verified"), "--verify", "0.5")
    assert result.remote(name) == 3 and result.split(name)["diverged"] > 0


def test_the_mirror_forgets_memory_calls(target, work, profile, monkeypatch):
    """A mapping that the call gave back in the mirror and not at home is there again for the next call."""
    monkeypatch.setitem(work.env, "LD_BIND_NOW", "1")  # else the slot of munmap is written on one side only
    result = work.run_split([target, "early", 1], profile("verified"), "--verify", 1)
    assert result.exit == 0 and re.search(r"^filled 1$", result.stdout, re.MULTILINE), result.stdout
    check_differs(result, "early_unmap", r"^the mapping 0x\w+-0x\w+ is not the same in the mirror and at home$")
    check_equal(result, "same_fill", 1)


def test_a_fraction(target, work, profile):
    """Every third call is verified, beginning with the first; the others run on the acceptor with what home has done."""
    result = work.same([target, "same", 7], profile("verified"), "--verify", "0.3334")
    for name in ("same_fill", "same_mapping", "same_unmap"):
        assert result.split(name)["verified"] == 3 and result.remote(name) == 4 and result.split(name)["diverged"] == 0


@pytest.mark.parametrize(
    ("mode", "name", "pattern"),
    [
        ("ticks_into", "ticks_into", r"^out\[17\] \(\[heap\]\+0x\w+, page 0x\w+000\): \d+ in the mirror, \d+ at home$"),
        ("ticks_static", "ticks_static", r"verified_table\+0x28 \(page 0x\w+\): 0x\w+ in the mirror, 0x\w+ at home$"),
        ("ticks_result", "ticks_result", r"^the result \(rax\): 0x\w+ in the mirror, 0x\w+ at home$"),
        ("ticks_mapping", "ticks_mapping", r"^an anonymous mapping of \d+ KiB \+0x\w+18 |mapping of 64 KiB \+0x18 "),
        ("home_only", "home_only", r"^out\[\d+\] \(\[heap\]\+0x\w+, page 0x\w+000\): "),
        ("late", "late_only", r"^\[heap\]\+0x\w* \(page 0x\w+000\): not written in the mirror, written at home$"),
    ],
)
def test_differences_are_named(target, work, profile, mode, name, pattern):
    """By argument and element, symbol, register, mapping and heap offset; page; and value on both sides."""
    check_differs(verify(work, [target, mode, 2], profile("verified")), name, pattern)


@pytest.mark.parametrize("name", ["noise_into", "noise_float_into", "noise_untyped"])
def test_tolerance(target, work, profile, name):
    """Floats that differ by less than the profile's tolerance are equal: of typed arguments, and where no type is known."""
    mode = name.removesuffix("_into")
    check_equal(verify(work, [target, mode, 2], profile("verified")), name, 2)


@pytest.mark.parametrize(("name", "pattern"), [("noise_into", r"^out\[\d+\] .*: [\d.]+ in the mirror, "), ("noise_untyped", r"^out \+ 0x")])
def test_no_tolerance(target, work, profile, name, pattern):
    """The same noise is a difference where no tolerance, or a smaller one, is stated."""
    mode = name.removesuffix("_into")
    check_differs(verify(work, [target, mode, 2], profile("verified_exact")), name, pattern)


def test_calls_that_cannot_be_compared(target, work, profile):
    """A system call for home is made once, at home; a call that leaves by longjmp is not waited for."""
    written = verify(work, [target, "write", 3], profile("verified")).split("same_write")
    assert (written["verified"], written["unverified"]) == (0, {"syscall:write": 3})
    left = verify(work, [target, "jump", 3], profile("verified")).split("throws_out")
    assert left["verified"] == 0 and sum(left["unverified"].values()) == 3
    assert left["local_reasons"] == {"verify": 3}


def test_busy_threads(target, work, profile):
    """What another thread does all the time is no call's difference."""
    result = verify(work, [target, "threads", 4], profile("verified"))
    for split in result.report["splits"]:
        assert split["diverged"] == 0 and set(split["unverified"]) <= {"threads", "syscall:sysinfo"}
    # Their signatures tell which memory is the calls'.
    for name in ("same_fill", "same_sum"):
        check_equal(result, name, 4)
    # Where the other thread had no time to run, there is nothing that could be its doing.
    mapping = result.split("same_mapping")
    assert mapping["verified"] + sum(mapping["unverified"].values()) == 4


def test_differences_beside_busy_threads(target, work, profile):
    """In the memory of an argument it is the call's."""
    check_differs(verify(work, [target, "ticks_into", 3, "threads"], profile("verified")), "ticks_into", r"^out\[17\] ")


def test_strict(target, work, profile):
    """--verify-strict exits 1 after any difference, says so in a line, and as the program does after none."""
    report = work.run_split([target, "ticks_into", 2], profile("verified"), "--verify", 1, "--verify-strict")
    assert report.exit == 1 and re.search(r"^radium: 2 verified calls differed; .*explain", report.stderr, re.MULTILINE)
    assert work.run_split([target, "same", 2], profile("verified"), "--verify", 1, "--verify-strict").exit == 0


def test_strict_attach(build, work, profile):
    """A program that ends well, and whose calls are the same on both sides, ends an attach well."""
    running = work.start([build("longrun", library="work")])
    progress(running)
    session = work.attach(running.pid, profile("work"), "--verify", "0.5", "--verify-strict")
    progress(running, steps=3)
    report = session.detach()
    print(report["splits"])
    assert sum(split["verified"] for split in report["splits"]) > 0
    assert not any(split["diverged"] for split in report["splits"])
    running.kill()
    running.check_success()


@pytest.mark.parametrize("fraction", ["-0.1", "1.1", "nan", "much"])
def test_bad_fractions(work, profile, fraction):
    result = work.radium("run", "--split", profile("verified"), f"--verify={fraction}", "--", "true")
    assert result.exit == 2 and "--verify" in result.stderr
    result.check_no_traceback()


def test_explained(target, work, profile):
    """`radium explain` tells the first difference, and why calls were not compared."""
    session = work.start_split([target, "ticks_into", 2], profile("verified"), "--verify", 1)
    work.finish(session.running)
    told = " ".join(work.radium("explain", session.path).stdout.split())
    assert "2 of 2 verified calls DIVERGED" in told and "The first difference: out[17]" in told
    session = work.start_split([target, "write", 2], profile("verified"), "--verify", 1)
    work.finish(session.running)
    told = " ".join(work.radium("explain", session.path).stdout.split())
    assert "Not compared, syscall:write (2 calls): in the mirror it came to where it would have gone home" in told


# Real programs


def test_reference_blas(build, work, profile):
    """dgemm and dsyrk of the reference BLAS give the same bytes on both sides."""
    result = verify(work, [build("blas", link=("-L/usr/lib/x86_64-linux-gnu/blas", "-lblas"))], profile("blas"))
    assert all(split["verified"] and not split["diverged"] for split in result.report["splits"]), result.report["splits"]


def test_zlib(work, profile):
    """deflate with all that it keeps between calls."""
    result = verify(work, [SYSTEM_PYTHON, TARGETS / "zlibs.py"], profile("zlibs"), timeout_s=120)
    check_equal(result, "deflate", result.local("deflate"))


@pytest.mark.parametrize("python", [sys.executable, SYSTEM_PYTHON])
def test_python(work, tmp_path, monkeypatch, python):
    """Dicts, closures, lists that grow into new arenas, and deep recursion: reference counts and free lists are the same."""
    monkeypatch.setitem(work.env, "PYTHONPATH", str(tmp_path))
    (tmp_path / "verifying.py").write_text(
        "def closures(n):\n"
        "    made = {str(i): (lambda x, i=i: x + i) for i in range(2000)}\n"
        "    return sum(one(n) for one in made.values())\n"
        "def arenas(n):\n"
        "    return len([bytearray(1000) for _ in range(n)])\n"
        "def deep(n):\n"
        "    return deep(n - 1) + 1 if n else 0\n"
    )
    (tmp_path / "main.py").write_text(
        "import verifying\nprint('READY')\n"
        "for i in range(4): print(verifying.closures(i), verifying.arenas(4000), verifying.deep(300))\n"
    )
    (tmp_path / "p.toml").write_text('[[split]]\npython = ["verifying:closures", "verifying:arenas", "verifying:deep"]\n')
    result = verify(work, [python, tmp_path / "main.py"], tmp_path / "p.toml")
    for name in ("verifying:closures", "verifying:arenas"):
        split = next(split for split in result.report["splits"] if split["name"].endswith(name))
        assert split["verified"] > 0 and split["diverged"] == 0, split


# What a trial tells

TRY = """
import sys
import radium
from radium.live import Console
from radium.profiles.library import open_profile
from radium.report import Report
from radium.tracer.acceptors import Acceptors
from radium.tracer.job import Job, Options
from radium.tracer.wakeups import Wakeups

say = Console(True)
job = Job([open_profile(sys.argv[1])], Acceptors([], "", say.event), Report(radium.__version__, [], [], [], []), say,
          Wakeups((15,)), Options(verify=1.0))
trials = []
job.common.on_verified = trials.append
job.common.counts_syscalls = True
code = job.run(sys.argv[2:])
for trial in trials:
    print("TRIAL", trial.split.report.name, trial.equal, trial.not_compared or "-", trial.threads, dict(trial.syscalls),
          trial.pages_written, trial.pages_sent + trial.paged_in > 0, trial.bytes_out > 0, trial.bytes_back > 0,
          trial.away_s >= trial.mirror_s > 0, trial.home_s > 0, bool(trial.working_set), sorted(trial.arguments))
sys.exit(code)
"""


def test_trials(target, work, profile):
    """Each call is told with what it moved, how long it took, and the system calls that it made at home."""
    for mode, expected in [
        ("same", r"same_fill True - 1 \{\} [89] True True True True True True \['n', 'out', 'seed'\]"),
        ("same", r"same_mapping True - 1 \{'mmap': 1\} 2[56]\d True"),
        ("write", r"same_write None syscall:write 1 \{'write': 1\} "),
    ]:
        result = work.finish(work.popen([sys.executable, "-c", TRY, profile("verified"), target, mode, 2], pass_stdin=False))
        assert result.exit == 0, result.stderr
        assert len(re.findall(rf"TRIAL {LIBRARY}:{expected}", result.stdout)) == 2, result.stdout


# Whatever goes wrong


def test_acceptor_killed(target, work, profile, acceptor):
    """The acceptor dies while calls are verified, again and again: each is made at home, once."""
    whole = work.run_whole([target, "long", 12])
    session = work.start_split([target, "long", 12], profile("verified"), "--verify", 1, acceptor=acceptor)
    for i in range(3):
        session.running.out.wait_for(f"^round {2 * i}$")
        acceptor.kill_sessions()
    result = work.finish(session.running)
    assert (result.stdout, result.exit) == (whole.stdout, 0)
    assert sum(session.report()["splits"][0]["local_reasons"].values()) <= 12


@pytest.mark.parametrize("nbytes", [200, 3000, 20_000])
@pytest.mark.parametrize("act", ["cut", pytest.param("stall", marks=pytest.mark.slow)])
def test_wire_cut(target, work, profile, acceptor, act, nbytes):
    """The wire is cut, or falls silent, in the middle of an answer that is to be compared."""
    proxy = Proxy(acceptor.address, [("down", nbytes, act)])
    try:
        result = verify(work, [target, "same", 6], profile("verified"), acceptor=proxy.address)
        assert proxy.done
        assert all(split["diverged"] == 0 for split in result.report["splits"])
    finally:
        proxy.close()


def attached(target, work, profile, acceptor):
    """A program that makes calls of 50 ms all the time, each verified; it is as it was, before and now."""
    running = work.start([target, "long", 40], hold=True)
    before = Snapshot.of(running.pid, LIBRARY)
    session = work.attach(running.pid, profile("verified"), "--verify", 1, acceptor=acceptor)
    running.release()
    running.out.wait_for("^round 1$")
    return running, session, before


def test_radium_killed(target, work, profile, acceptor):
    """kill -9 of radium while a verified call runs at home: nothing is left in the program, which does all its work."""
    running, session, before = attached(target, work, profile, acceptor)
    # At home the thread runs; while its call is away, it is stopped.
    poll_until(lambda: status(running.pid)["State"].startswith("R"), "a call runs at home")
    session.running.kill(signal.SIGKILL)
    session.running.wait()
    poll_until(
        lambda: code_of(running.pid, LIBRARY) == before.code and status(running.pid)["TracerPid"] == "0",
        "the guardian has done its work",
    )
    running.wait()
    assert running.out.seen[-2:] == ["made 40", "EXIT-SUCCESS"]


def test_detached_in_the_middle(target, work, profile, acceptor):
    """A detach while a verified call runs at home does not wait for its end, and leaves the program as it was."""
    running, session, before = attached(target, work, profile, acceptor)
    poll_until(lambda: status(running.pid)["State"].startswith("R"), "a call runs at home")
    report = session.detach()
    now = Snapshot.of(running.pid, LIBRARY)
    assert (now.code, now.status) == (before.code, before.status)
    assert all(split["diverged"] == 0 for split in report["splits"])
    running.wait()
    assert running.out.seen[-2:] == ["made 40", "EXIT-SUCCESS"]
