"""radium trace: what it finds in stock programs, and that it leaves them alone."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import traced
from harness import DEADLINE_S, Snapshot, Workplace, poll_until, radium_argv, status

from radium.profiles.schema import load

PROGRAMS = {program.name: program for program in traced.PROGRAMS}
SHA = "| sha256sum"


def trace(work: Workplace, *arguments: object, timeout_s: float = 4 * DEADLINE_S):
    """`radium trace ARGUMENTS` to its end; what it found."""
    found = work.folder / "found.json"
    result = work.radium("trace", "--json", found, *arguments, timeout_s=timeout_s)
    assert result.exit == 0, result.stderr
    return result, json.loads(found.read_text())


def names(found) -> dict[str, str]:
    return {one["name"]: one["verdict"] for one in found["candidates"]}


def check_program(work: Workplace, name: str, size: float, duration_s: float) -> None:
    """The function is found that a person would choose; with the profile that is written the output is the same."""
    program = PROGRAMS[name]
    command = program.command(work.folder, size)
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is not installed; scripts/setup does it")
    command = ["sh", "-c", f'exec "$0" "$@" {SHA}', *command] if name in ("pigz", "convert", "gzip") else command
    whole = work.run_whole(command, 4 * DEADLINE_S)
    profile = work.folder / "split.toml"
    result, found = trace(work, "-o", profile, "--duration", duration_s, "--", *command)
    assert result.stdout == whole.stdout
    if not program.expected:
        assert not profile.exists() and "nothing to split" in result.stderr
        return
    best = found["candidates"][0]
    assert best["name"].endswith(program.expected), names(found)
    if best["name"].startswith("python:"):
        assert best["reason"] == "Python functions are not tried" and not profile.exists()
        return
    assert best["trial"] is not None and best["trial"]["equal"] is not False, best
    split = work.run_split(command, profile, timeout_s=8 * DEADLINE_S)
    assert split.stdout == whole.stdout and split.exit == 0
    assert best["name"] in {one["name"] for one in split.report["splits"]}


@pytest.mark.parametrize("name", ["openssl", pytest.param("gzip", marks=pytest.mark.slow)])
def test_stock_program(work, name):
    """One call that takes all the time, tried in its middle; and a program that exports nothing."""
    check_program(work, name, 1.0, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("openssl", "gzip")])
def test_all_stock_programs(work, name):
    """Eight programs, with the two above."""
    work.env["OPENBLAS_NUM_THREADS"] = "1"
    check_program(work, name, 2.0, 10)


@pytest.fixture
def products(work):
    """A NumPy program that runs, for a long time."""
    return work.popen([sys.executable, traced.FOLDER / "products.py", 100_000])


def test_running_program(work, products):
    """One that runs already is traced, and attach takes the profile as it is; its code is as it was."""
    profile, page = work.folder / "split.toml", work.folder / "page.html"
    result, found = trace(work, "--pid", products.pid, "--duration", 5, "-o", profile, "--html", page)
    assert next(iter(names(found))).endswith("cblas_dgemm64_")
    assert "scipy_cblas_dgemm64_" in result.stdout and "radium attach --pid" in result.stdout
    dgemm = found["candidates"][0]
    assert dgemm["calls"] > 0 and dgemm["trial"]["calls"] == 3 and dgemm["trial"]["equal"] and not dgemm["trial"]["syscalls"]
    assert dgemm["size"] == "m * n * k" and {one["size"] for one in dgemm["sizes"]} == {900.0**3}
    assert found["samples"]["taken"] > 50 and found["samples"]["not_unwound"] * 20 < found["samples"]["taken"]
    assert load(profile).splits[0].working_set and page.read_text().startswith("<!DOCTYPE html>")
    assert work.radium("profiles", "check", profile).exit == 0
    session = work.attach(products.pid, profile)
    report = session.detach()
    assert [one["name"] for one in report["splits"]] == [dgemm["name"]]
    assert products.alive
    products.kill(signal.SIGTERM)


@pytest.mark.slow
def test_python_functions(work):
    """Functions of Python packages are found under the names that a profile has."""
    _, found = trace(work, "--duration", 6, "--", sys.executable, traced.FOLDER / "fit.py", 12)
    assert any(one.startswith("python:sklearn.ensemble._gb:") for one in names(found)), names(found)


def test_guard_is_found(build, work):
    """Where large calls win and small ones do not, the profile has a guard over the argument that the time depends on."""
    program, profile = build("mixture", library="mixture"), work.folder / "split.toml"
    whole = work.run_whole([program, 80])
    result, found = trace(work, "--duration", 4, "-o", profile, "--", program, 80)
    assert result.stdout == whole.stdout
    best = found["candidates"][0]
    assert (best["name"], best["verdict"], best["size"]) == ("libmixture.so:mixture_mix", "with guard", "arg0"), best
    assert 16 < best["break_even"] < 32768
    (split,) = load(profile).splits
    assert split.guard.text == best["guard"] and "guard of libmixture.so:mixture_mix: arg0 >= " in result.stderr
    report = work.run_split([program, 5], profile).report
    (counts,) = report["splits"]
    assert 0 < counts["local_reasons"]["guard"] < 60


@pytest.mark.slow
def test_given_link(work, products):
    """A link that is given is reckoned with: over a slow one, nothing gains."""
    _, found = trace(work, "--pid", products.pid, "--duration", 4, "--rtt", "100ms", "--bandwidth", "10Mbit")
    assert found["link"]["origin"] == "given" and found["link"]["rtt_s"] == 0.1 and found["link"]["bytes_per_s"] == 1.25e6
    best = found["candidates"][0]
    assert best["there_s"] > best["here_s"] + 1 and best["verdict"] in ("no", "not yet") and best["gain"] < -1


@pytest.mark.slow
def test_named_acceptor(work, acceptor, products):
    """The acceptor that is named is measured, and the calls are tried there."""
    _, found = trace(work, "--pid", products.pid, "--duration", 4, "--acceptor", f"127.0.0.1:{acceptor.port}")
    assert found["link"]["origin"] == "measured" and 0 < found["link"]["rtt_s"] < 1
    assert found["candidates"][0]["trial"]["calls"] == 3


def test_interrupted(work, products):
    """Ctrl-C ends a trace early: what is known by then is told."""
    running = work.popen(radium_argv("trace", "--pid", products.pid, "--duration", 600), pass_stdin=False)
    poll_until(lambda: "bpf-map" in _files(running.pid), "sampling")
    running.kill(signal.SIGINT)
    result = work.finish(running)
    assert result.exit == 0 and "samples in" in result.stdout, result
    assert products.alive




EVENTS = {
    "sampling": lambda radium, program: "bpf-map" in _files(radium),
    "counting": lambda radium, program: _files(radium).count("bpf_link") >= 1 and "bpf-prog" in _files(radium),
    "trying": lambda radium, program: status(program)["TracerPid"] == str(radium),
}


@pytest.mark.parametrize("event", ["trying", *(pytest.param(event, marks=pytest.mark.slow) for event in ("sampling", "counting"))])
def test_radium_killed(work, products, event):
    """kill -9 in any step of a trace leaves the program as it was: its code, and it goes on."""
    poll_until(lambda: _openblas(products.pid), "its library")
    library = _openblas(products.pid)
    before = Snapshot.of(products.pid, library).code
    running = work.popen(radium_argv("trace", "--pid", products.pid, "--duration", 4), pass_stdin=False)
    poll_until(lambda: EVENTS[event](running.pid, products.pid), event)
    running.kill(signal.SIGKILL)
    running.wait()
    poll_until(lambda: Snapshot.of(products.pid, library).code == before, "the code is as it was")
    poll_until(lambda: status(products.pid)["TracerPid"] == "0", "nobody traces it")
    assert products.alive


def _openblas(pid: int) -> str:
    """The name of the library that NumPy computes with; empty as long as it is not mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return next((line.rpartition("/")[2] for line in maps.splitlines() if "openblas" in line and "r-xp" in line), "")


def _files(pid: int) -> str:
    return " ".join(str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())


DEGRADED = {
    "no bcc": ('mount -t tmpfs none /usr/lib/python3/dist-packages && exec "$@"', "bcc, which is not installed"),
    "no privilege": ('exec setpriv --bounding-set -all --inh-caps -all "$@"', "not permitted"),
}


@pytest.mark.parametrize("what", ["no bcc", pytest.param("no privilege", marks=pytest.mark.slow)])
def test_without_bpf(work, products, what):
    """Without BPF stacks are sampled by ptrace and calls are not counted, each with a line; the function is found and tried."""
    script, why = DEGRADED[what]
    found = work.folder / "found.json"
    radium = radium_argv("trace", "--duration", 6, "--json", found, "--", *products.argv[:-1], 400)
    products.kill()
    result = work.run_whole(["unshare", "-m", "sh", "-c", script, "sh", *radium], 4 * DEADLINE_S)
    assert result.exit == 0, result.stderr
    content = json.loads(found.read_text())
    assert content["samples"]["way"] == "ptrace" and content["overhead"]["counting"] is None
    assert sum(why in note for note in content["notes"]) == 2, content["notes"]
    best = content["candidates"][0]
    assert best["name"].endswith("cblas_dgemm64_") and best["calls"] is None and best["trial"]["calls"] == 3


def test_short_program(work):
    """A program that ends at once is told so."""
    result, found = trace(work, "--", "true")
    assert found["candidates"] == [] and "nothing to split" in result.stderr and result.stdout == ""


@pytest.mark.slow
def test_program_that_executes_another(work):
    """What is executed while it is watched is watched on."""
    command = PROGRAMS["openssl"].command(work.folder, 0.5)
    _, found = trace(work, "--duration", 4, "--", "sh", "-c", 'sleep 0.5; exec "$@"', "sh", *command)
    assert next(iter(names(found))).endswith("PKCS5_PBKDF2_HMAC")


def test_static_program(build, work):
    """A static program has nothing that could be split, and that is said."""
    running = work.popen([build("spins", "-static")])
    result, found = trace(work, "--pid", running.pid, "--duration", 2)
    assert running.alive and found["candidates"] == [] and "nothing to split" in result.stdout
    assert found["samples"]["not_unwound"] * 10 < found["samples"]["taken"]


WRONG = [
    ((), "one program is to be traced"),
    (("--pid", 1, "--", "true"), "one program is to be traced"),
    (("--pid", 1, "--duration", "-1"), "is not a time"),
    (("--duration", "nan", "--", "true"), "is not a time"),
    (("--rtt", "soon", "--", "true"), "--rtt soon is no time"),
    (("--bandwidth", "much", "--", "true"), "--bandwidth much is no bandwidth"),
    (("-o", "/nowhere/p.toml", "--", "true"), "/nowhere/p.toml cannot be written"),
    (("--", "no-such-program"), "no-such-program: there is no such program"),
    (("--pid", 4194303), "there is no such process"),
]


@pytest.mark.parametrize(("flags", "says"), WRONG)
def test_wrong_usage(work, flags, says):
    result = work.radium("trace", *flags)
    assert result.exit in (1, 2, 3) and says in result.stderr and len(result.stderr.splitlines()) == 1, result
    result.check_no_traceback()
