"""Bad input: one line that says what, where and what to do; the right exit code; never a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TARGETS, Snapshot, poll_until, progress, status


def check_refused(result, code, *words):
    """One short answer: exit `code`, the words on stderr, no traceback, nothing on stdout."""
    result.check_no_traceback()
    codes = code if isinstance(code, set) else {code}
    assert result.exit in codes, (result.exit, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word.lower() in lines[0].lower(), result.stderr
    assert result.stdout == ""


def free_pid():
    pid = int(Path("/proc/sys/kernel/pid_max").read_text()) - 1
    while os.path.exists(f"/proc/{pid}"):
        pid -= 1
    return pid


def test_pid_that_does_not_exist(work, profile):
    """A pid of nobody is named as such."""
    pid = free_pid()
    check_refused(work.radium("attach", "--pid", pid, "--split", profile("null")), {1, 2, 3}, str(pid))


def test_kernel_thread(work, profile):
    """A kernel thread has no memory to split."""
    if "kthread" not in Path("/proc/2/comm").read_text():
        pytest.skip("pid 2 is not a kernel thread here (a pid namespace)")
    check_refused(work.radium("attach", "--pid", 2, "--split", profile("null")), 3, "kernel thread")


def test_own_pid(work, profile):
    """radium does not attach to itself."""
    command = [sys.executable, "-c", ATTACH_TO_SELF, profile("null")]
    check_refused(work.run_whole(command), {2, 3}, "itself")


ATTACH_TO_SELF = """
import os, sys
os.execv(sys.executable, [sys.executable, "-m", "radium", "attach", "--split", sys.argv[1], "--pid", str(os.getpid())])
"""

HOLD_BY_PTRACE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
assert libc.ptrace(0x4206, ctypes.c_long(pid), None, None) == 0  # PTRACE_SEIZE
print("READY", flush=True)
sys.stdin.read()
"""


def test_already_traced(build, work, profile):
    """A process that has a tracer is refused with the tracer's name or pid."""
    target = work.start([build("longrun", library="work")])
    tracer = work.start([sys.executable, "-c", HOLD_BY_PTRACE, target.pid])
    refused = work.radium("attach", "--pid", target.pid, "--split", profile("work"))
    check_refused(refused, 3, "traced", str(tracer.pid))
    progress(target)


def test_attached_twice(build, work, profile):
    """A second attach is refused; the first goes on."""
    target = work.start([build("longrun", library="work")])
    first = work.attach(target.pid, profile("work"))
    check_refused(work.radium("attach", "--pid", target.pid, "--split", profile("work")), 3, "traced")
    progress(target)
    first.detach()


def test_thirty_two_bits(work, profile, tmp_path):
    """A 32-bit program is refused as such and goes on."""
    program = tmp_path / "thirtytwo"
    flags = "-m32 -O1 -nostdlib -static -ffreestanding -fno-pie -no-pie -fno-stack-protector".split()
    built = subprocess.run(["gcc", *flags, "-o", program, TARGETS / "thirtytwo.c"], capture_output=True, check=False)
    if built.returncode:
        pytest.skip("gcc cannot build for 32 bits here")
    try:
        target = work.start([program])
    except OSError:
        pytest.skip("this kernel does not run 32-bit programs")
    check_refused(work.radium("attach", "--pid", target.pid, "--split", profile("null")), 3, "32-bit")
    target.release()
    target.check_success()


def test_static_program(build, work, profile):
    """A static program has no library to split: radium says so, and it goes on."""
    target = work.start([build("loopstatic", "-static")])
    refused = work.radium("attach", "--pid", target.pid, "--split", profile("null"), "--duration", "0.2")
    assert "static" in refused.check_no_traceback().stderr
    target.release()
    target.check_success()


def test_static_program_run(build, work, profile):
    """`run` of a static program prints what the program prints."""
    split = work.run_split([build("loopstatic", "-static")], profile("null"))
    assert split.stdout.endswith("EXIT-SUCCESS") and split.exit == 0
    assert "static" in split.check_no_traceback().stderr


def test_zombie(build, work, profile):
    """A process that has ended but was not waited for has no memory to split."""
    target = work.start([build("null", library="null"), 1])
    poll_until(lambda: status(target.pid)["State"].startswith("Z"), "it is a zombie")
    check_refused(work.radium("attach", "--pid", target.pid, "--split", profile("null")), {1, 3}, str(target.pid))


@pytest.fixture
def as_nobody(work):
    """Runs a Python of this version as nobody, with radium importable; and makes the test's folder readable."""
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    work.env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    work.env["HOME"] = "/tmp"
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [*prefix, python, "-c", "import radium.cli, msgspec, capstone"]
        if not subprocess.run(probe, capture_output=True, check=False, cwd="/", env=work.env).returncode:
            break
    else:
        pytest.skip("needs a Python with radium's packages that other users can read")
    for folder in (work.folder, *work.folder.parents[:2]):
        folder.chmod(0o755)
    return prefix, [*prefix, python, "-m", "radium"]


def readable(profile, folder):
    path = folder / "readable.toml"
    path.write_bytes(profile.read_bytes())
    path.chmod(0o644)
    return path


@pytest.mark.root
def test_another_users_process(build, work, profile, as_nobody):
    """A process of another user is refused with exit 3 and the way to do it, and is left alone."""
    _, radium = as_nobody
    target = work.start([build("longrun", library="work")])
    before = Snapshot.of(target.pid, "libwork.so")
    text = readable(profile("work"), work.folder)
    refused = work.run_whole([*radium, "attach", "--pid", target.pid, "--split", text])
    check_refused(refused, 3, str(target.pid))
    before.check_same(Snapshot.of(target.pid, "libwork.so"))
    progress(target)


@pytest.mark.root
def test_unprivileged_user(build, work, profile, as_nobody):
    """A user without privileges attaches to a process of their own, or is told in one line what is missing."""
    prefix, radium = as_nobody
    program = build("longrun", library="work")
    for folder in (program.parent, *program.parent.parents[:2]):
        folder.chmod(0o755)
    target = work.start([*prefix, program])
    text = readable(profile("work"), work.folder)
    told = work.run_whole([*radium, "attach", "--pid", target.pid, "--split", text, "--duration", "0.5"])
    assert told.check_no_traceback().exit in {0, 3}, told.stderr
    progress(target)
    target.kill()
    target.check_success()


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        'name = "x"\n[[split]]\nlibrary = 5\nfunction = "f"\n',
        'name = "x"\n[[split]]\nlibrary = "l"\nfunction = "f"\nunknown = 1\n',
        'name = "x"\n[[split]]\nlibrary = "l"\n',
        'name = "x"\n[[split]]\nlibrary = "l"\nfunction = "f"\nguard = "__import__(\'os\')"\n',
        'name = "x"\n[[split]]\nlibrary = "l"\nfunction = "f"\nsignature = "int f(("\n',
        'name = "x"\n[[split]]\nlibrary = "l"\nfunction = "f"\nstance = "sideways"\n',
        "\x00\x01\x02",
    ],
    ids=["syntax", "type", "unknown-key", "no-function", "guard", "signature", "stance", "binary"],
)
def test_bad_profiles(build, work, tmp_path, text):
    """A bad profile is refused with exit 2 and its file, before the program starts."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    refused = work.radium("run", "--split", path, "--", build("null", library="null"))
    check_refused(refused, 2, "bad.toml")


def test_missing_profile(build, work):
    """A profile that is neither a file nor in the library is refused with exit 2 and the names there are."""
    refused = work.radium("run", "--split", "blass", "--", build("null", library="null"))
    check_refused(refused, 2, "blass", "blas")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["attach"],
        ["attach", "--split", "blas", "--pid", "twelve"],
        ["attach", "--split", "blas", "--pid", "-5"],
        ["attach", "--split", "blas", "--pid", "0"],
        ["run", "--split", "blas"],
        ["run", "--split", "blas", "--acceptor", "nowhere", "--", "true"],
        ["run", "--split", "blas", "--acceptor", "localhost:99999", "--", "true"],
        ["run", "--split", "blas", "--verify", "2", "--", "true"],
        ["run", "--split", "blas", "--trap", "magic", "--", "true"],
        ["serve", "--listen", "nonsense"],
        ["explain", "/nonexistent/report.json"],
        ["profiles", "show", "nonesuch"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40] or "nothing",
)
def test_wrong_usage(work, arguments):
    """Wrong flags and arguments exit 2 with a message on stderr."""
    refused = work.radium(*arguments).check_no_traceback()
    assert refused.exit == 2, (refused.exit, refused.stderr)
    assert refused.stderr


def test_listen_beyond_loopback(work):
    """`serve` beyond loopback without a token is refused, with the flag that would allow it."""
    check_refused(work.radium("serve", "--listen", "0.0.0.0:0"), {2, 3}, "--token-file")


def test_port_in_use(work, acceptor):
    """A port that is taken is named."""
    check_refused(work.radium("serve", "--listen", acceptor.address), {1, 3}, str(acceptor.port))


def test_program_that_does_not_exist(work, profile, tmp_path):
    """A program that cannot be started is one line and an exit code."""
    refused = work.radium("run", "--split", profile("null"), "--", tmp_path / "nowhere")
    check_refused(refused, {1, 2, 3, 126, 127}, "nowhere")


def test_function_that_does_not_exist(build, work, tmp_path):
    """A function that the library lacks is told with the nearest names; the program runs."""
    path = tmp_path / "p.toml"
    path.write_text('name = "p"\ntitle = "P"\n[[split]]\nlibrary = "libnull.so*"\nfunction = "nul_call"\n')
    ran = work.radium("run", "--split", path, "--", build("null", library="null"), 3).check_no_traceback()
    assert "nul_call" in ran.stderr and "null_call" in ran.stderr


def test_static_function(build, work, tmp_path):
    """A function that the library does not export says why it cannot be split."""
    path = tmp_path / "p.toml"
    path.write_text('name = "p"\ntitle = "P"\n[[split]]\nlibrary = "libifunc.so*"\nfunction = "resolve"\n')
    ran = work.radium("run", "--split", path, "--", build("ifunc", library="ifunc")).check_no_traceback()
    assert "resolve" in ran.stderr


@pytest.mark.parametrize("token", ["wrong", None])
def test_wrong_token(build, work, profile, tmp_path, token):
    """An acceptor with a token refuses who has not its token; the calls are local and say so."""
    right, other = tmp_path / "right", tmp_path / "wrong"
    right.write_text("a-long-enough-secret-token-1\n")
    other.write_text("a-long-enough-secret-token-2\n")
    for path in (right, other):
        path.chmod(0o600)
    acceptor = work.serve("--token-file", right)
    program = [build("null", library="null"), 5]
    refused = ["--token-file", other] if token else []
    split = work.same(program, profile("null"), *refused, acceptor=acceptor)
    assert split.remote("null_call") == 0
    assert all(reason.startswith(("refused", "no-acceptor")) for reason in split.reasons("null_call"))
    allowed = work.same(program, profile("null"), "--token-file", right, acceptor=acceptor)
    assert allowed.remote("null_call") == 5


def test_doctor(work):
    """`doctor` says what this machine can do, also as JSON."""
    told = work.radium("doctor").check_no_traceback()
    assert told.exit in {0, 1, 3} and told.stdout
    json.loads(work.radium("doctor", "--json").stdout)
