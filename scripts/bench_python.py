"""The figures of split Python functions, as bench_figures.py has those of C functions; and of the same calls by rivals.

The tracee is benchmarks/python_tracee.py, its user code benchmarks/rivals/plain.py; radium splits that as it is. What a
user has to change for a rival is what the other files there differ by, line by line.
"""

import ast
import difflib
import functools
import importlib.metadata
import secrets
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from figures import BULK_NBYTES, HERE, MS, ONE_THREAD, Bench, Figure, Rival, Skipped, per_call
from processes import PATIENCE_S, Failed, Process

RIVALS_ENVIRONMENT = Path(__file__).parents[1] / ".venv-rivals"
# Behind it is how many functions are split.
SPLIT = "radium: Python "
MOVED = ("sent", "paged_in", "written_back", "out_nbytes", "back_nbytes")
GROWTH_NCALLS = 1000
RIVALS = (Rival("joblib/loky", "joblib", "with_loky"), Rival("Ray", "ray", "with_ray"))


@dataclass(frozen=True)
class Work:
    """What is measured: the tracee's word for it, the function that is split, how often it is called.

    rival_ncalls: how often in the comparison. needs: a library that it cannot do without. is_slow: only with --slow.
    """

    what: str
    title: str
    function: str
    ncalls: int
    quick_ncalls: int
    rival_ncalls: int
    needs: str | None = None
    is_slow: bool = False


WORKS = (
    Work("empty", "empty Python function", "plain:empty", 1000, 1000, 1000),
    Work("dumps", "json.dumps of 1 MiB", "json:dumps", 1000, 50, 50),
    Work("loop", "Python loop of 50 ms", "plain:loop", 1000, 20, 20),
    Work("svd", "svd 1000 x 1000", "numpy.linalg:svd", 10, 3, 5),
    Work("forest", "RandomForest.fit", "sklearn.ensemble:RandomForestClassifier.fit", 3, 1, 1, needs="sklearn"),
    Work("forward", "PyTorch forward", "torch.nn:Sequential.forward", 200, 50, 50, needs="torch", is_slow=True),
)


@contextmanager
def tracee(bench: Bench, user_code: str = "plain") -> Iterator[Process]:
    """The Python program with the code of that module. It ends by itself, so that a rival can take its processes along."""
    env = {**ONE_THREAD, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE / "rivals")}
    # Ray tells nobody of its use, leaves nothing behind, and wants a secret, for which it would write a file.
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(bench.folder), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with Process([bench.python, str(HERE / "python_tracee.py"), user_code], "stdout", env) as process:
        process.wait_for_words("READY")
        yield process
        assert process.popen.stdin
        process.popen.stdin.close()
        process.popen.wait(PATIENCE_S)


def profile(bench: Bench, function: str) -> str:
    """A file that splits this function."""
    path = bench.folder / "python.toml"
    path.write_text(f'name = "python"\n[[split]]\npython = "{function}"\n')
    return str(path)


def has(bench: Bench, library: str) -> bool:
    command = [bench.python, "-c", f"import importlib.util, sys; sys.exit(not importlib.util.find_spec('{library}'))"]
    return subprocess.run(command, check=False).returncode == 0


def python_calls(work: Work, bench: Bench) -> Iterator[Figure]:
    """Calls of one function in the steady state, against the same at home; what they move, and whether that grows.

    What crossed per call is the difference of a long and a short run.
    """
    if work.needs and not has(bench, work.needs):
        raise Skipped(f"{work.needs} is not installed; with --rivals{' --slow' if work.is_slow else ''} it is")
    what, few, count = work.what, bench.times(3, 1), bench.times(work.ncalls, work.quick_ncalls)
    split = profile(bench, work.function)
    with tracee(bench) as process:
        process.ask(f"{what} 1")
        before = process.ask(f"{what} {min(count, 50)}")
        with bench.split(process, split, few, SPLIT):
            first = process.ask(f"{what} {few}")
        # What the first calls need is the same in the next two: by now the process is as calls that came home leave it.
        with bench.split(process, split, few, SPLIT) as short_report:
            process.ask(f"{what} {few}")
        with bench.split(process, split, few + count, SPLIT) as report:
            process.ask(f"{what} {few}")
            remote = process.ask(f"{what} {count}")
        after = process.ask(f"{what} {min(count, 50)}")
    if len({phase["sha256"] for phase in (before, first, remote, after)}) != 1:
        raise Failed(f"{work.function}: the results of split calls are not those of local ones")
    value, at_home = median(remote["ns"]), median(before["ns"] + after["ns"])
    details = {"split": remote, "first": first, "before": before, "after": after, "report": report,
               "short_report": short_report}  # fmt: skip
    if what == "empty":
        limit, limit_name, target, met = bench.pingpong_ns(), "raw TCP ping-pong", "< 3 ms", value < 3 * MS
    else:
        limit, limit_name, target, met = at_home, "local call", "", None
    yield Figure(work.title, value / MS, "ms", limit / MS, limit_name, value / limit, target, met, details)
    moved = {name: per_call(report, short_report, name) for name in MOVED}
    yield Figure("  pages per call", per_call(report, short_report, "crossed"), "pages", details=moved)
    yield Figure("  bytes per call", per_call(report, short_report, "crossed_nbytes") / 1024, "KiB")
    if count >= GROWTH_NCALLS:
        early, late = median(remote["ns"][100:200]), median(remote["ns"][-100:])
        yield Figure(
            "  last 100 of 1,000 calls", late / MS, "ms", early / MS, "calls 100 to 200", late / early,
            "<= 1.2 x", late <= 1.2 * early,
        )  # fmt: skip
    for rival in bench.rivals:
        yield from against(bench, work, rival, before["sha256"])


def against(bench: Bench, work: Work, rival: Rival, sha256: str) -> Iterator[Figure]:
    """The same calls in a row by radium and by a rival, each in a program that has made one before."""
    count = bench.times(work.rival_ncalls, work.quick_ncalls)
    ours, theirs = [], []
    for _ in range(bench.times(3, 1)):
        with tracee(bench) as process, bench.split(process, profile(bench, work.function), count, SPLIT):
            ours.append(timed(process, work.what, count, sha256))
        with tracee(bench, rival.user_code) as process:
            theirs.append(timed(process, work.what, count, sha256))
    value, limit = (median(one["total_ns"] for one in side) for side in (ours, theirs))
    yield Figure(
        f"  {count:,} calls" if count > 1 else "  a call", value / MS, "ms", limit / MS, rival.name, value / limit,
        details={"ours": ours, "theirs": theirs},
    )  # fmt: skip


def timed(process: Process, what: str, count: int, sha256: str) -> dict[str, Any]:
    """The first call, in which each side gets ready, and so many others in a row."""
    first, rest = process.ask(f"{what} 1"), process.ask(f"{what} {count}")
    if rest["sha256"] != sha256:
        raise Failed(f"call_{what} gives something else than at home")
    return {"first_ns": first["ns"][0], "total_ns": sum(rest["ns"])}


def first_python_call(bench: Bench) -> Iterator[Figure]:
    """The first call of numpy.linalg.norm that a fresh process splits: everything that the mirror needs crosses now."""
    local, split, ideal, reports = [], [], [], []
    for _ in range(bench.times(5, 2)):
        with tracee(bench) as process:
            local += process.ask("norm 1")["ns"]
        with tracee(bench) as process, bench.split(process, profile(bench, "numpy.linalg:norm"), 1, SPLIT) as report:
            split += process.ask("norm 1")["ns"]
        ideal.append(local[-1] + report["crossed_nbytes"] * bench.bulk_ns() / BULK_NBYTES)
        reports.append(report)
    value, limit = median(split), median(ideal)
    yield Figure(
        "first Python call, fresh NumPy", value / MS, "ms", limit / MS, "first local + its bytes by raw TCP", value / limit,
        "< 300 ms", value < 300 * MS, {"split_ns": split, "local_ns": local, "reports": reports},
    )  # fmt: skip
    yield Figure("  pages", median(report["crossed"] for report in reports), "pages")
    yield Figure("  bytes", median(report["crossed_nbytes"] for report in reports) / 1024, "KiB")


def changed_lines(bench: Bench) -> Iterator[Figure]:
    """How many lines of its code a user changes, adds or takes away."""
    plain = code_lines("plain")
    for rival in RIVALS:
        opcodes = difflib.SequenceMatcher(None, plain, code_lines(rival.user_code), autojunk=False).get_opcodes()
        changed = sum(max(a_end - a, b_end - b) for tag, a, a_end, b, b_end in opcodes if tag != "equal")
        yield Figure(f"lines of user code changed, of {len(plain)}", 0, "lines", changed, rival.name)


def code_lines(user_code: str) -> list[str]:
    """A module's lines, without its docstring, blank lines and comments."""
    text = (HERE / "rivals" / f"{user_code}.py").read_text()
    lines = text.splitlines()[ast.parse(text).body[0].end_lineno :]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def rivals_environment(slow: bool) -> tuple[str, list[Rival]]:
    """The interpreter of an environment with rivals and libraries, and the rivals that could be installed.

    Its NumPy is ours, so that figures can be compared with the others.
    """
    python = RIVALS_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(RIVALS_ENVIRONMENT, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    numpy = f"numpy=={importlib.metadata.version('numpy')}"

    def installed(package: str) -> bool:
        done = subprocess.run([*pip, numpy, package], stdout=sys.stderr, stderr=subprocess.DEVNULL, check=False)
        if done.returncode:
            print(f"bench: {package} cannot be installed and is left out", file=sys.stderr)
        return not done.returncode

    for library in ["scikit-learn", "torch"] if slow else ["scikit-learn"]:
        installed(library)
    return str(python), [rival for rival in RIVALS if installed(rival.package)]


SLOW = {f"python-{work.what}" for work in WORKS if work.is_slow}
FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    **{f"python-{work.what}": functools.partial(python_calls, work) for work in WORKS},
    "python-first": first_python_call,
    "python-lines": changed_lines,
}
