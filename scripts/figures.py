"""A figure of scripts/bench, and what measuring one needs: compiled programs, an acceptor, limits, attached tracees.

Everything started here is ended by its pid.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from processes import Failed, Process, attached

HERE = Path(__file__).parent / "benchmarks"
OWN_SPLITS, WEIGHED_SPLITS = str(HERE / "tracee.toml"), str(HERE / "tracee_auto.toml")
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
BULK_NBYTES = 64 << 20
MS = 1_000_000


@dataclass
class Figure:
    """One row. `ratio` is filled in from value and limit where both are times; `met` is None without a target.

    limit, ratio: None for what is reported without a limit.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    limit_name: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Skipped(Exception):
    """A figure cannot be had here, which is no failure."""


class Rival(NamedTuple):
    """Another way to have calls made elsewhere; user_code: the module with what the user has changed for it."""

    name: str
    package: str
    user_code: str


class Bench:
    """What all figures need: the compiled programs, the acceptor, the number of repetitions, the limits met so far.

    python: the interpreter of Python tracees; rivals: what it can be compared with there.
    """

    def __init__(
        self, folder: Path, where: list[str], quick: bool, python: str = sys.executable, rivals: Sequence[Rival] = ()
    ) -> None:
        self.folder = folder
        self.where = where
        self.quick = quick
        self.python = python
        self.rivals = rivals
        self.limits: dict[str, dict[str, dict[str, int]]] = {}
        for program in ("limits", "tracee"):
            source = HERE / f"{program}.c"
            subprocess.run(["gcc", "-O2", "-rdynamic", "-pthread", "-o", str(folder / program), str(source)], check=True)

    def times(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def limit(self, kind: str, full: int, quick: int) -> int:
        """The median of a raw limit, in nanoseconds, placed on the CPUs in the way that is best for it."""
        if kind not in self.limits:
            command = [str(self.folder / "limits"), kind, str(self.times(full, quick))]
            self.limits[kind] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        return min(placed["median_ns"] for placed in self.limits[kind].values())

    def pingpong_ns(self) -> int:
        return self.limit("pingpong", 20_000, 5_000)

    def bulk_ns(self) -> int:
        return self.limit("bulk", 30, 10)

    def stop_ns(self) -> int:
        return self.limit("stop", 20_000, 5_000)

    def seize_ns(self) -> int:
        return self.limit("seize", 500, 100)

    def c_tracee(self) -> Process:
        return Process([str(self.folder / "tracee")], "stdout")

    def numpy_tracee(self, env: dict[str, str] | None = None) -> Process:
        tracee = Process([sys.executable, str(HERE / "numpy_tracee.py")], "stdout", env or ONE_THREAD)
        tracee.ask("spin 1")  # it has imported NumPy when it answers
        return tracee

    @contextmanager
    def split(
        self, tracee: Process, split: str, remote: int = 0, begun: str = "attached to PID", flags: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Attach for the length of the block; the yielded dictionary gets the report's totals when the block has ended.

        begun: what radium says when calls are split. Failed unless at least `remote` calls were remote: a figure of calls
        that stayed at home would be worthless.
        """
        report = self.folder / "report.json"
        totals: dict[str, Any] = {}
        with attached(tracee.pid, split, report, [*self.where, *flags]) as radium:
            radium.wait_for_words(begun)
            yield totals
        totals.update(report_totals(report))
        if totals["remote"] < remote:
            raise Failed(f"only {totals['remote']} of {remote} calls were remote; local: {totals['local_reasons']}")


def report_totals(report: Path) -> dict[str, Any]:
    """What a report says, added up over its splits."""
    splits = json.loads(report.read_text())["splits"]
    totals: dict[str, Any] = {
        "remote": sum(split["calls"]["remote"] for split in splits),
        "sent": sum(split["pages"]["sent"] for split in splits),
        "paged_in": sum(split["pages"]["paged_in"] for split in splits),
        "written_back": sum(split["pages"]["written_back"] for split in splits),
        "out_nbytes": sum(split["bytes"]["out"] for split in splits),
        "back_nbytes": sum(split["bytes"]["back"] for split in splits),
        "in_mirror_s": sum(split["seconds"]["in_mirror"] for split in splits),
    }
    totals["crossed"] = totals["sent"] + totals["paged_in"] + totals["written_back"]
    totals["crossed_nbytes"] = totals["out_nbytes"] + totals["back_nbytes"]
    totals["local_reasons"] = {
        f"{split['name']}: {reason}": count for split in splits for reason, count in split["local_reasons"].items()
    }
    totals["traps"] = {split["name"]: split["trap"] for split in splits}
    totals["went_home"] = {
        f"{split['name']}: {reason}": count for split in splits for reason, count in split["went_home"].items()
    }
    return totals


def per_call(long_report: dict[str, Any], short_report: dict[str, Any], what: str) -> float:
    """What one more call adds to a report's total, without what only the first calls of a run need."""
    return (long_report[what] - short_report[what]) / (long_report["remote"] - short_report["remote"])
