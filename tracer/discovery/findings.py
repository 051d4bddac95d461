"""What a trace has found: values, and the file of `--json`. Table and page show a Findings, the profile is made from it.

Units: seconds are float seconds of wall time, bytes are bytes, shares are of all samples, 0 to 1. Names of functions are
those of a report: `libblas.so.3:dgemm_`, `python:numpy.linalg:svd`. None: not known, with a reason in `reason`.
"""

import json
import os
from typing import Literal

import msgspec

from radium import files
from radium.core.places import Place

# ready: every call gains; with guard: the large ones do; not yet: it could on another link or acceptor; no: it cannot.
Verdict = Literal["ready", "with guard", "not yet", "no"]
# JSON is written and read by recursion, of which CPython allows some hundreds.
DEEPEST = 200


class Link(msgspec.Struct):
    """The way to the acceptor. origin: "measured", "given", or "this machine" for a private acceptor."""

    acceptor: str
    rtt_s: float
    bytes_per_s: float
    origin: str


class Samples(msgspec.Struct):
    """way: "perf events" or "ptrace"; python: of how many Python frames are known."""

    way: str
    frequency: float
    taken: int
    not_unwound: int
    python: int


class Overhead(msgspec.Struct):
    """Of radium on the tracee: the time that it took of it, as a share of the tracee's CPU time in that step."""

    sampling: float
    counting: float | None
    trying_s: float | None


class Trial(msgspec.Struct):
    """Means of the calls that were made in a private mirror as well. All that is moved is what a steady state moves.

    pages_read: touched by the mirror; syscalls: that would go home, per call, by name; equal: whether all results were
    the tracee's own, None when that could not be compared; threads: that a call takes along.
    """

    calls: int
    pages_read: float
    pages_written: float
    bytes_out: float
    bytes_back: float
    syscalls: dict[str, float]
    threads: int
    here_s: float
    in_mirror_s: float
    way_s: float
    equal: bool | None
    difference: str = ""


class Sized(msgspec.Struct):
    """One observed call: its size, by the guard's expression, and what it took here; there_s: predicted."""

    size: float
    here_s: float
    there_s: float


class Candidate(msgspec.Struct):
    """A function that could be a split point.

    library, function: as a profile's split has them (python splits: "" and module:qualified.name). inclusive, exclusive:
    shares of the samples. calls: counted while it was watched for `watched_s`, outermost ones only; latency_ns: how many
    took from 2**i ns on to 2**(i + 1). gain: net, as a share of the program's time (negative: it loses). reason: a word
    or a few. guard: as a profile has it; break_even: the size from which it wins. working_set: what its calls touched
    besides `memory`, for the first one of a later run.
    """

    name: str
    library: str
    function: str
    inclusive: float
    exclusive: float
    calls: int | None = None
    watched_s: float = 0.0
    latency_ns: list[int] = []
    threads: int = 0
    callers: dict[str, int] = {}
    trial: Trial | None = None
    here_s: float | None = None
    there_s: float | None = None
    gain: float | None = None
    verdict: Verdict = "no"
    reason: str = ""
    guard: str = ""
    size: str = ""
    break_even: float | None = None
    sizes: list[Sized] = []
    signature: str = ""
    memory: list[tuple[str, str]] = []
    working_set: list[Place] = []


class Node(msgspec.Struct):
    """Of the call tree: a frame, the samples in it, and those it called. name: as a report has it, or what a person reads."""

    name: str
    samples: int
    children: list["Node"] = []


class Findings(msgspec.Struct):
    """candidates: ranked, the best first."""

    radium: str
    program: list[str]
    pids: list[int]
    duration_s: float
    samples: Samples
    overhead: Overhead
    link: Link
    candidates: list[Candidate]
    tree: Node
    notes: list[str] = []

    def best(self) -> list[Candidate]:
        """Those that are worth a split, the best first."""
        return [candidate for candidate in self.candidates if candidate.verdict in ("ready", "with guard")]

    def possible(self) -> list[Candidate]:
        """Those that could be: what was tried, came out right, and would gain on a faster acceptor or link."""
        return [one for one in self.candidates if one.verdict == "not yet" and one.there_s is not None]

    def write(self, path: str | os.PathLike[str]) -> None:
        """As JSON; bytes of names that are not UTF-8 are replaced, frames below the DEEPEST are left out. Raises JobFailed."""
        shown = msgspec.structs.replace(self, tree=pruned(self.tree))
        text = json.dumps(msgspec.to_builtins(shown), indent=1, ensure_ascii=False) + "\n"
        files.write(path, text, "what was found", "--json")


def load(path: str | os.PathLike[str]) -> Findings:
    """Read what `write` wrote. Raises UsageError when it cannot be read or is something else."""
    return files.read_json(path, Findings, "what a trace has found", "give a file that `radium trace` wrote with --json")


def pruned(node: Node, fewest: int = 0, deepest: int = DEEPEST) -> Node:
    """The tree without nodes of fewer samples, and without those further down."""
    children = [child for child in node.children if child.samples >= fewest] if deepest > 1 else []
    return Node(node.name, node.samples, [pruned(child, fewest, deepest - 1) for child in children])
