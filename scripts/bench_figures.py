"""The figures of scripts/bench: each measured in a tracee that times its own calls, beside its limit in the same run.

A ratio says how many times worse than its limit a figure is; 1 would be perfect. All times are nanoseconds until they
are printed. The limits are in benchmarks/limits.c, the tracees in benchmarks/tracee.c and benchmarks/numpy_tracee.py; the
figures of Python functions are in bench_python.py, those of `radium trace` in bench_trace.py.
Everything started here is ended by its pid.
Example: .venv/bin/python scripts/bench_figures.py --quick --only null
"""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import bench_trace
from rich.console import Console
from rich.table import Table

import bench_python
from figures import BULK_NBYTES, MS, OWN_SPLITS, WEIGHED_SPLITS, Bench, Figure, Skipped, per_call
from processes import Failed, Process, end_in_order, serving

MATRIX_NBYTES = 8 * 1024 * 1024  # of a matrix of 1024 rows and columns
BUSY_LOAD = 0.5  # load average of the last minute; one program that computes makes 1


def null_call(bench: Bench) -> Iterator[Figure]:
    """A C function that returns its argument, against 64 bytes there and back."""
    count = bench.times(2000, 300)
    with bench.c_tracee() as tracee:
        local = tracee.ask(f"null {count}")
        with bench.split(tracee, OWN_SPLITS, count + 20) as report:
            tracee.ask("null 20")
            split = tracee.ask(f"null {count}")
    value, limit = split["median_ns"], bench.pingpong_ns()
    yield Figure(
        "null call", value / 1e3, "µs", limit / 1e3, "raw TCP ping-pong", value / limit,
        "< 1 ms", value < MS, {"split": split, "local": local, "report": report},
    )  # fmt: skip


def trip_home(bench: Bench) -> Iterator[Figure]:
    """A C function that makes one system call of the tracee's: two calls' worth of frames, and the system call at home."""
    count = bench.times(1000, 200)
    with bench.c_tracee() as tracee:
        local = tracee.ask(f"trip {count}")
        with bench.split(tracee, OWN_SPLITS, count + 20) as report:
            tracee.ask("trip 20")
            split = tracee.ask(f"trip {count}")
    value, limit = split["median_ns"], 2 * bench.pingpong_ns()
    yield Figure(
        "call with a trip home", value / 1e3, "µs", limit / 1e3, "two raw TCP ping-pongs", value / limit,
        details={"split": split, "local": local, "report": report},
    )  # fmt: skip


def parked_threads(bench: Bench) -> Iterator[Figure]:
    """The null call in a process with 16 threads that wait in futexes, which are stopped and sent on in each call."""
    count = bench.times(1000, 200)
    with bench.c_tracee() as tracee:
        tracee.ask("park 16")
        with bench.split(tracee, OWN_SPLITS, count + 20) as report:
            tracee.ask("null 20")
            split = tracee.ask(f"null {count}")
    value, limit = split["median_ns"], bench.pingpong_ns()
    yield Figure(
        "null call, 16 parked threads", value / 1e3, "µs", limit / 1e3, "raw TCP ping-pong", value / limit,
        details={"split": split, "report": report},
    )  # fmt: skip


def calls_at_once(bench: Bench) -> Iterator[Figure]:
    """Eight threads of a server with calls away at the same time (`threads = "run"`), against one: wall time per call."""
    nthreads, ncpus = 8, len(os.sched_getaffinity(0))
    with bench.c_tracee() as tracee:
        local = tracee.ask(f"serve {nthreads}")
        with bench.split(tracee, OWN_SPLITS, 1) as report:
            tracee.ask(f"serve {nthreads}")
            alone = [tracee.ask("serve 1")["ns_per_call"] for _ in range(bench.times(3, 1))]
            together = [tracee.ask(f"serve {nthreads}")["ns_per_call"] for _ in range(bench.times(3, 1))]
    value, limit = median(together), median(alone) / min(nthreads, ncpus)
    yield Figure(
        "calls of 8 threads at once", value / MS, "ms", limit / MS, f"one thread's, on {ncpus} CPUs", value / limit,
        details={"alone_ns": alone, "together_ns": together, "local": local, "report": report},
    )  # fmt: skip


def bulk_read(bench: Bench) -> Iterator[Figure]:
    """64 MiB that are rewritten before each call and summed by it."""
    count = bench.times(12, 4)
    with bench.c_tracee() as tracee:
        local = tracee.ask(f"bulk {count}")
        with bench.split(tracee, OWN_SPLITS, count + 2) as report:
            first = tracee.ask("bulk 2")
            split = tracee.ask(f"bulk {count}")
    rate, raw_rate = BULK_NBYTES / split["median_ns"], BULK_NBYTES / bench.bulk_ns()
    yield Figure(
        "64 MiB read by a call", rate, "GB/s", raw_rate, "raw TCP bulk", raw_rate / rate,
        ">= 1 GB/s", rate >= 1, {"split": split, "first": first, "local": local, "report": report},
    )  # fmt: skip


def products(tracee: Process, size: int, count: int, what: str) -> dict[str, Any]:
    return tracee.ask(f"product {size} {count} {what}")


def expect_same_results(*phases: dict[str, Any]) -> None:
    if len({phase["sha256"] for phase in phases}) != 1:
        raise Failed("the products of a split run are not bit-identical to the local ones")


def dgemm(bench: Bench) -> Iterator[Figure]:
    """Matrix products with operands that are rewritten before each, against the same process before and after."""
    for size, full, quick in ((512, 40, 10), (1024, 20, 6), (2048, 8, 3)):
        count = bench.times(full, quick)
        with bench.numpy_tracee() as tracee:
            products(tracee, size, 2, "fresh")
            before = products(tracee, size, count, "fresh")
            with bench.split(tracee, "blas", count + 2) as report:
                first = products(tracee, size, 2, "fresh")
                during = products(tracee, size, count, "fresh")
            after = products(tracee, size, count, "fresh")
        expect_same_results(before, during, after)
        value, limit = median(during["ns"]), median(before["ns"] + after["ns"])
        targeted = size == 1024
        yield Figure(
            f"dgemm {size}, fresh operands", value / MS, "ms", limit / MS, "local call", value / limit,
            "<= 1.6 x local" if targeted else "", value <= 1.6 * limit if targeted else None,
            {"first_ns": first["ns"], "split_ns": during["ns"], "before_ns": before["ns"], "after_ns": after["ns"],
             "report": report},
        )  # fmt: skip
        in_mirror = report["in_mirror_s"] / report["remote"] * 1e9
        yield Figure("  mean in the mirror", in_mirror / MS, "ms", limit / MS, "local call", in_mirror / limit)


def unchanged_run(bench: Bench, *counts: int) -> tuple[list[int], list[list[int]], list[dict[str, Any]]]:
    """Products of 1024 with the left matrix unchanged, in one process that is attached anew for each count.

    Returns the local durations, and for each count the split ones and the report. Three more split products come first
    each time, in which the new mirror gets what it will keep.
    """
    splits, reports = [], []
    with bench.numpy_tracee() as tracee:
        products(tracee, 1024, 3, "keep")
        phases = [products(tracee, 1024, counts[-1], "keep")]
        for count in counts:
            with bench.split(tracee, "blas", count + 3) as report:
                products(tracee, 1024, 3, "keep")
                during = products(tracee, 1024, count, "keep")
            splits.append(during["ns"])
            reports.append(report)
        phases.append(products(tracee, 1024, counts[-1], "keep"))
    expect_same_results(*phases, during)
    return [ns for phase in phases for ns in phase["ns"]], splits, reports


def dgemm_unchanged(bench: Bench) -> Iterator[Figure]:
    """100 products of which A is unchanged. What crossed per call is the difference of a long and a short run."""
    short, long = 10, bench.times(100, 30)
    local, (_, split), (short_report, report) = unchanged_run(bench, short, long)
    details = {"split_ns": split, "local_ns": local, "report": report, "short_report": short_report}

    value, limit = sum(split), sum(local) / 2
    yield Figure(
        f"{long} dgemm 1024, A unchanged", value / MS, "ms", limit / MS, "local calls", value / limit, details=details,
    )  # fmt: skip

    for direction, what, needed in (("out", "out_nbytes", "B"), ("back", "back_nbytes", "C")):
        crossed = per_call(report, short_report, what)
        yield Figure(
            f"  {direction} per call", crossed / 1024, "KiB", MATRIX_NBYTES / 1024, needed, crossed / MATRIX_NBYTES
        )
    crossed, needed_nbytes = per_call(report, short_report, "crossed_nbytes"), 2 * MATRIX_NBYTES
    yield Figure(
        "  crossed per call", crossed / 1024, "KiB", needed_nbytes / 1024, "B + C", crossed / needed_nbytes,
        "<= B + C + 256 KiB", crossed <= needed_nbytes + (256 << 10),
    )  # fmt: skip

    paged_in = per_call(report, short_report, "paged_in")
    yield Figure("  page-ins per call", paged_in, "pages", 0, "none", paged_in, "none", paged_in <= 0)


def first_call(bench: Bench) -> Iterator[Figure]:
    """The first product that a fresh process splits: everything that the mirror needs crosses now."""
    local, split, ideal, reports = [], [], [], []
    for _ in range(bench.times(5, 2)):
        with bench.numpy_tracee() as tracee:
            local += products(tracee, 512, 1, "fresh")["ns"]
        with bench.numpy_tracee() as tracee, bench.split(tracee, "blas", 1) as report:
            split += products(tracee, 512, 1, "fresh")["ns"]
        ideal.append(local[-1] + report["crossed_nbytes"] * bench.bulk_ns() / BULK_NBYTES)
        reports.append(report)
    value, limit = median(split), median(ideal)
    yield Figure(
        "first call, fresh NumPy", value / MS, "ms", limit / MS, "first local + its bytes by raw TCP", value / limit,
        details={"split_ns": split, "local_ns": local, "reports": reports},
    )  # fmt: skip


def largest_gap(gaps: list[list[int]], start: int, end: int) -> int:
    """The longest time for which a tracee stood still between two moments."""
    return max((ns for when, ns in gaps if when < end and when + ns > start), default=0)


def felt_pauses(bench: Bench, tracee: Process, split: str) -> dict[str, int]:
    """How long a tracee that looks at the clock all the time stood still at most: untouched, attaching, detaching."""
    untouched_s, spin_s = 1.0, 8.0
    begun = time.monotonic_ns()
    number = len(tracee.lines)
    tracee.say(f"spin {int(spin_s * 1000)}")
    time.sleep(untouched_s)  # the measurement itself: nothing happens to the tracee in this time
    attaching = time.monotonic_ns()
    with bench.split(tracee, split):
        detaching = time.monotonic_ns()
    detached = time.monotonic_ns()
    if detached > begun + spin_s * 1e9:
        raise Failed(f"attaching and detaching took longer than {spin_s - untouched_s:.0f} s")
    tracee.wait_for(lambda lines: len(lines) > number, "the spinning tracee's answer")
    gaps = json.loads(tracee.lines[number])["gaps"]
    return {
        "untouched_ns": largest_gap(gaps, begun, attaching),
        "attach_ns": largest_gap(gaps, attaching, detaching),
        "detach_ns": largest_gap(gaps, detaching, detached),
    }


def attach_pause(bench: Bench) -> Iterator[Figure]:
    """The longest time for which attaching keeps the tracee from running, as it sees it itself."""
    tracees: list[tuple[str, Callable[[], Process], str]] = [
        ("C program", bench.c_tracee, OWN_SPLITS),
        ("NumPy", functools.partial(bench.numpy_tracee, dict(os.environ)), "blas"),
    ]
    for name, start, split in tracees:
        pauses = []
        for _ in range(bench.times(3, 1)):
            with start() as tracee:
                pauses.append(felt_pauses(bench, tracee, split))
        value, worst = median(p["attach_ns"] for p in pauses), max(p["attach_ns"] for p in pauses)
        limit = bench.seize_ns()
        yield Figure(
            f"attach pause, {name}", value / MS, "ms", limit / MS, "one ptrace stop and detach", value / limit,
            "< 100 ms", worst < 100 * MS, {"pauses": pauses},
        )  # fmt: skip


def rejected_call(bench: Bench) -> Iterator[Figure]:
    """A call that its guard keeps at home: with a breakpoint, against a breakpoint stop; with a uprobe, against the former."""
    count = bench.times(5000, 1000)
    with bench.c_tracee() as tracee, bench.split(tracee, OWN_SPLITS, flags=["--trap", "breakpoint"]) as report:
        tracee.ask("pushing 50")
        rounds = [tracee.ask(f"pushing {count}")["mean_ns"] for _ in range(bench.times(5, 3))]
    rejected = sum(n for reason, n in report["local_reasons"].items() if reason.endswith(": guard"))
    if rejected < count * len(rounds):
        raise Failed(f"only {rejected} of {count * len(rounds)} calls were kept at home by the guard")
    value, limit = median(rounds), bench.stop_ns()
    yield Figure(
        "guard-rejected call", value / 1e3, "µs", limit / 1e3, "int3 + ptrace stop", value / limit,
        details={"rounds_ns": rounds, "report": report},
    )  # fmt: skip
    yield rejected_by_kernel(bench, count * 100, value)


def rejected_by_kernel(bench: Bench, count: int, limit: float) -> Figure:
    with bench.c_tracee() as tracee, bench.split(tracee, OWN_SPLITS, flags=["--trap", "uprobe"]) as report:
        tracee.ask("pushing 50")
        rounds = [tracee.ask(f"pushing {count}")["mean_ns"] for _ in range(bench.times(5, 3))]
    if report["traps"]["tracee:bench_pushing"] != "uprobe":
        raise Skipped("no uprobes here: see radium doctor")
    rejected = sum(n for reason, n in report["local_reasons"].items() if reason.endswith(": guard"))
    if rejected < count * len(rounds):
        raise Failed(f"only {rejected} of {count * len(rounds)} calls were rejected by the kernel")
    value = median(rounds)
    return Figure(
        "guard-rejected call, uprobe", value / 1e3, "µs", limit / 1e3, "the same with a breakpoint", value / limit,
        "< 1.5 µs", value < 1500, {"rounds_ns": rounds, "report": report},
    )  # fmt: skip


def weighed_calls(bench: Bench) -> Iterator[Figure]:
    """Functions that gain nothing away, with policy = "auto" behind their first 20 calls, against never split, in turns."""
    kinds = (("loop", "null call", 200_000_000), ("work", "call of a fraction of a millisecond", 2_000))
    rounds = bench.times(10, 5)
    for what, name, count in kinds:
        with bench.c_tracee() as whole, bench.c_tracee() as tracee, bench.split(tracee, WEIGHED_SPLITS) as report:
            tracee.ask(f"{what} 20")
            turns = [[one.ask(f"{what} {count}")["mean_ns"] for one in (whole, tracee)] for _ in range(rounds)]
        limit, value = (sum(column) / rounds for column in zip(*turns, strict=True))
        yield Figure(
            f"{name}, auto", value / 1e3, "µs", limit / 1e3, "never split", value / limit,
            "<= 1.05 x", value <= 1.05 * limit, {"turns": turns, "report": report},
        )  # fmt: skip


def residual_cost(bench: Bench) -> Iterator[Figure]:
    """What calls cost after detaching, against before attaching: the best of many, which noise spares."""
    rounds, count = bench.times(15, 8), 20_000_000
    with bench.c_tracee() as tracee:
        before = [tracee.ask(f"loop {count}")["mean_ns"] for _ in range(rounds)]
        with bench.split(tracee, OWN_SPLITS, 50):
            tracee.ask("null 50")
        after = [tracee.ask(f"loop {count}")["mean_ns"] for _ in range(rounds)]
    value, limit = min(after), min(before)
    noise = max(1.05, median(before) / limit)
    yield residue("call after detach", "ns", value, limit, noise, {"before": before, "after": after})

    rounds, count = 3, bench.times(30, 15)
    attached_ones = [best_products(bench, count, attach=True) for _ in range(rounds)]
    untouched = [best_products(bench, count, attach=False) for _ in range(rounds)]
    before, after = ([pair[i] / MS for pair in attached_ones] for i in (0, 1))
    value, limit = median(after), median(before)
    noise = max(1.05, *(max(pair) / min(pair) for pair in untouched))
    yield residue("dgemm 1024 after detach", "ms", value, limit, noise, {"before": before, "after": after})


def best_products(bench: Bench, count: int, *, attach: bool) -> tuple[int, int]:
    """The best product of a process before it was attached and after; with attach=False nothing happens between.

    It stays on one CPU: where the scheduler puts it makes a greater difference than anything that is looked for here.
    """
    with bench.numpy_tracee() as tracee:
        os.sched_setaffinity(tracee.pid, {min(os.sched_getaffinity(0))})
        products(tracee, 1024, 3, "fresh")
        before = products(tracee, 1024, count, "fresh")["ns"]
        if attach:
            with bench.split(tracee, "blas", 3):
                products(tracee, 1024, 3, "fresh")
        return min(before), min(products(tracee, 1024, count, "fresh")["ns"])


def residue(name: str, unit: str, value: float, limit: float, noise: float, details: dict[str, Any]) -> Figure:
    """noise: by how much the figure varies without radium."""
    return Figure(
        name, value, unit, limit, "before attach", value / limit,
        f"<= {noise:.2f} x (noise)", value <= noise * limit, details,
    )  # fmt: skip


FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "null": null_call,
    "trip": trip_home,
    "parked": parked_threads,
    "server": calls_at_once,
    "bulk": bulk_read,
    "dgemm": dgemm,
    "unchanged": dgemm_unchanged,
    "first": first_call,
    "pause": attach_pause,
    "guard": rejected_call,
    "auto": weighed_calls,
    "residual": residual_cost,
    **bench_python.FIGURES,
    **bench_trace.FIGURES,
}


def measure(bench: Bench, names: list[str], failures: dict[str, str]) -> Iterator[Figure]:
    """The figures of these names; one that cannot be measured is put among the failures, and the others go on."""
    for name in names:
        try:
            yield from FIGURES[name](bench)
        except Skipped as skipped:
            print(f"bench: {name} is skipped: {skipped}", file=sys.stderr)
        except (Failed, subprocess.SubprocessError) as error:
            failures[name] = str(error)


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(": ")[1] for line in cpuinfo.splitlines() if line.startswith("model name")), "unknown CPU")
    return {
        "kernel": f"Linux {platform.release()}",
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "load": os.getloadavg()[0],
    }


def warn_if_busy(about: dict[str, Any]) -> None:
    if about["load"] > BUSY_LOAD:
        advice = "the figures will be too bad; run it again when nothing else runs"
        print(f"bench: the machine is busy (load {about['load']:.1f}): {advice}", file=sys.stderr)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: list[Figure], about: dict[str, Any]) -> Table:
    title = "{kernel}, {cpu}, {cpus} CPUs, Python {python}, NumPy {numpy}".format_map(about)
    rows = Table("figure", title=title, title_justify="left")
    for heading in ("radium", "limit"):
        rows.add_column(heading, justify="right")
    rows.add_column("limit is")
    rows.add_column("ratio", justify="right")
    rows.add_column("target")
    rows.add_column("")
    for figure in figures:
        verdict = {True: "[green]pass", False: "[red]FAIL", None: ""}[figure.met]
        value = f"{number(figure.value)} {figure.unit}"
        limit = "" if figure.limit is None else f"{number(figure.limit)} {figure.unit}"
        ratio = "" if figure.ratio is None else number(figure.ratio)
        rows.add_row(figure.name, value, limit, figure.limit_name, ratio, figure.target, verdict)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="radium's figures beside the machine's limits")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", action="append", choices=list(FIGURES), help="only this figure (repeatable)")
    parser.add_argument("--slow", action="store_true", help="slow figures too")
    parser.add_argument("--rivals", action="store_true", help="Python functions by joblib and Ray too, from .venv-rivals")
    parser.add_argument("--json", metavar="FILE", help="write the figures with all details; - for stdout")
    parser.add_argument("--acceptor", metavar="HOST:PORT", help="use this acceptor; default: one is started")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    end_in_order()
    console = Console(stderr=options.json == "-", width=None if sys.stdout.isatty() else 140)
    about = machine()
    warn_if_busy(about)
    failures: dict[str, str] = {}
    figures = []
    names = options.only or [name for name in FIGURES if options.slow or name not in {*bench_python.SLOW, *bench_trace.FIGURES}]
    python, rivals = bench_python.rivals_environment(options.slow) if options.rivals else (sys.executable, [])
    with tempfile.TemporaryDirectory(prefix="radium-bench-") as folder:
        acceptor = nullcontext(options.acceptor) if options.acceptor else serving()
        with acceptor as address:
            bench = Bench(Path(folder), ["--acceptor", address], options.quick, python, rivals)
            for figure in measure(bench, names, failures):
                figures.append(figure)
                print(f"bench: {figure.name.strip()}: {number(figure.value)} {figure.unit}", file=sys.stderr)
    console.print(table(figures, about))
    for name, reason in failures.items():
        console.print(f"{name} could not be measured: {reason}", markup=False, soft_wrap=True)
    if options.json:
        result = {**about, "figures": [asdict(f) for f in figures], "limits": bench.limits, "failures": failures}
        text = json.dumps(result, indent=1)
        print(text) if options.json == "-" else Path(options.json).write_text(text + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.SubprocessError, OSError) as error:
        sys.exit(f"bench: {error}")
