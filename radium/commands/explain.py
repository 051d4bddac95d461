"""`radium explain REPORT.json [SPLIT]`: a report in words, on stdout.

For every split point: how many calls ran there and here, why, what would change it, and what the calls cost.
The story is made by `explain`, which takes and returns values only.
"""

import argparse
import difflib
import fnmatch
import shutil
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from radium.commands import weighing
from radium.errors import UsageError
from radium.live import bytes_text, printable, seconds_text
from radium.report import CallCost, ProcessReport, Report, SplitReport, load


class Reason(NamedTuple):
    """What a reason means and what would change it; `{}` stands for what follows it (a system call, a signal)."""

    meaning: str
    change: str


# Looked up by the longest leading part that is here: `unsupported:syscall:write` finds `unsupported:syscall`.
REASONS = {
    "guard": Reason(
        "the profile's guard said that these calls are not worth splitting",
        "A looser guard in the profile sends more of them out; it pays only where the call takes longer at home than "
        "its memory takes to move.",
    ),
    "policy": Reason(
        "what calls had cost on both sides said that these would take longer away, or they were timed at home to know that",
        'policy = "always" in the profile sends them out regardless.',
    ),
    "nested": Reason(
        "these calls were made inside another split call that ran at home, and a split call inside a split call is "
        "part of it",
        "outermost = false in the profile lets the inner calls be split on their own.",
    ),
    "no-acceptor": Reason(
        "no acceptor was there to take them",
        "Start one with `radium serve` and name it with --acceptor; radium uses it as soon as it answers.",
    ),
    "acceptor-lost": Reason(
        "the connection to the acceptor broke while they were away, so they ran at home, from the beginning; nothing "
        "was done twice",
        "Look at the acceptor's own messages and at the network between; calls go out again when it is back.",
    ),
    "timeout": Reason(
        "the acceptor did not finish them in time; they went on at home",
        "If such calls are honestly long, allow more with --call-timeout; else the acceptor is overloaded or hangs.",
    ),
    "stuck": Reason(
        "in the mirror they spun, waiting for something that only another thread of the program could give; they went "
        "on at home",
        "A function that waits for other threads cannot run alone: split one further inside, or keep these calls at "
        "home with a guard.",
    ),
    "conflict": Reason(
        "when they came home, the program's memory no longer fitted their answer, so the answer was thrown away",
        'threads = "stop" in the profile keeps the other threads from writing meanwhile.',
    ),
    "unsupported:syscall": Reason(
        "they went home for the system call {}, and did not come back from it to where the call goes on: it ended the "
        "thread or the program, or a signal led elsewhere",
        "Nothing was lost; split a function further inside if the work after it should run away.",
    ),
    "unsupported:signal": Reason(
        "the signal {} called them home, and its handler led out of the function, or ended the program",
        "Nothing was lost: the call had done at home what it would have done without radium.",
    ),
    "unsupported:fault": Reason(
        "they raised {} and went home for it, where the instruction was executed again: if the fault was real, the "
        "program's handler led out of the function or the program ended, and if not, the call went on there",
        "If the program dies of it without radium too, mend the program; if only the mirror faults, please report it.",
    ),
    "unsupported:SIGURG": Reason(
        "their thread blocks SIGURG, by which the uprobe trap stops it, so they ran at home",
        "--trap breakpoint stops such threads too.",
    ),
    "unsupported": Reason(
        "they did something that radium does not carry over: {}",
        "Split a function that does not do this (one further inside), or keep these calls at home with a guard.",
    ),
    "refused:detaching": Reason(
        "radium was detaching from the program while they were away, and what they had done came home with them",
        "Nothing needs to change.",
    ),
    "refused:visit": Reason(
        "a thread of the program was on a visit to its Python interpreter for radium at that moment",
        "Nothing needs to change: that is so for a few milliseconds, at the beginning, at the end and after imports.",
    ),
    "refused:draining": Reason(
        "the acceptor was draining: it sent them home, with what they had done",
        "Name another acceptor with --acceptor: calls then go on there.",
    ),
    "refused:verifying": Reason(
        "radium was verifying another call of the program at that moment, and no other may be away meanwhile",
        "A smaller --verify FRACTION, or none, lets more calls out.",
    ),
    "verify": Reason(
        "they were chosen to be verified: they ran on an acceptor and at home, and the program went on with home's result",
        "Without --verify they would have run on an acceptor only.",
    ),
    "refused": Reason(
        "the acceptor refused: {}",
        "The acceptor's operator can grant it, or name another acceptor with --acceptor.",
    ),
}
# Why calls that were to be verified were not compared, as far as it is no reason for running at home.
UNVERIFIED = {
    "left": "at home it left its function otherwise than by a return, or the program ended.",
    "threads": "other threads ran meanwhile, memory differs that may be theirs, and no signature says which is the call's.",
    "exception": "in the mirror it threw an exception.",
    "longjmp": "in the mirror it left by longjmp.",
    "stack": "in the mirror it needed a deeper stack than a mirror has room for at first.",
    "unsupported:caller": "its caller is code made at run time, where its return cannot be noticed.",
}
UNKNOWN = Reason("this version of radium does not know the reason", "Explain the report with the one that wrote it.")

# Arbitrary: below this many page-ins per call, hints would save less than a millisecond.
MANY_PAGE_INS = 8
# Arbitrary: calls that spend less than half of their time in the mirror lose more on the way than they compute.
WORTHWHILE_SHARE = 0.5
MAX_WIDTH = 100


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `radium explain`."""
    parser = subparsers.add_parser("explain", help="tell in words why calls ran here or there")
    parser.add_argument("report", metavar="REPORT.json", help="what `radium run` or `attach` wrote with --report")
    parser.add_argument("split", metavar="SPLIT", nargs="?", help="only this split point: a name, a function or a glob")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tell the story on stdout. Raises UsageError for a bad report or an unknown split point."""
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    for paragraph in explain(load(args.report), args.split):
        indent = " " * (len(paragraph) - len(paragraph.lstrip()))
        print(textwrap.fill(printable(paragraph), max(width, 40), subsequent_indent=indent, break_on_hyphens=False))
    return 0


def explain(report: Report, pattern: str | None = None) -> Iterator[str]:
    """The paragraphs of the story; leading blanks are the indentation. Raises UsageError when nothing matches."""
    splits = report.splits if pattern is None else _matching(report.splits, pattern)
    if pattern is None:
        yield from _job(report)
    told = splits if pattern is not None else [split for split in splits if split.calls.remote + split.calls.local]
    for split in told:
        yield ""
        yield from _split(split)
    if len(told) < len(splits):
        yield ""
        yield from _silent([split for split in splits if split not in told])


def _silent(splits: list[SplitReport]) -> Iterator[str]:
    names = ", ".join(split.name for split in splits[:3])
    more = f" and {len(splits) - 3} more" if len(splits) > 3 else ""
    yield f"Never called while radium watched: {names}{more}. Are these the names under which the program calls them?"


def _matching(splits: list[SplitReport], pattern: str) -> list[SplitReport]:
    """A split point is named whole (`libm.so.6:sin`), by its function alone (`sin`), or by a glob over either."""

    def names(split: SplitReport) -> tuple[str, str]:
        return split.name, split.name.rpartition(":")[2]

    found = [split for split in splits if pattern in names(split)]
    found = found or [split for split in splits if any(fnmatch.fnmatchcase(name, pattern) for name in names(split))]
    if not found:
        raise UsageError(f"the report has no split point {pattern!r}", advice=_nearest(splits, pattern))
    return found


def _nearest(splits: list[SplitReport], pattern: str) -> str:
    by_name = {name: split.name for split in splits for name in (split.name, split.name.rpartition(":")[2])}
    near = dict.fromkeys(by_name[name] for name in difflib.get_close_matches(pattern, by_name, n=6, cutoff=0.4))
    near = near or dict.fromkeys(split.name for split in splits)
    return "it has " + ", ".join(list(near)[:3]) if near else "it has none at all"


def _job(report: Report) -> Iterator[str]:
    program = " ".join(report.program) or "a program"
    at = f"with {', '.join(report.acceptors)}" if report.acceptors else "without an acceptor"
    yield f"{program}, split by radium {report.radium} {at}."
    for process in report.processes:
        yield f"Process {process.pid} {_fate(process)}."
    for note in report.notes:
        yield f"Note: {note}"
    if not report.splits:
        yield "No split point was found in it: no library it has mapped matches the profile."


def _fate(process: ProcessReport) -> str:
    if process.exit is None:
        return "went on by itself after radium had let it go"
    if process.exit > 128:
        return f"was ended by signal {process.exit - 128}"
    return f"ended with exit status {process.exit}"


def _split(split: SplitReport) -> Iterator[str]:
    remote, local = split.calls.remote, split.calls.local
    why = f": {split.trap_reason}" if split.trap_reason else ""
    yield f"{split.name} ({split.stance} stance, {split.trap} trap{why})"
    if not remote + local:
        yield "  Never called while radium watched. Is this the name under which the program calls it?"
        return
    yield f"  {_times(remote + local)}: {remote} on an acceptor, {local} at home."
    for reason, count in sorted(split.local_reasons.items(), key=lambda item: -item[1]):
        yield f"  At home, {reason} ({_times(count)}): {reason_text(reason)}"
    yield from _trips(split)
    if remote:
        yield from _cost(split)
    if split.cost is not None:
        yield from weighing.tell(split.cost)
    yield from _verification(split)


def reason_text(reason: str) -> str:
    """Two sentences: what the reason means, and what would change it."""
    words = reason.split(":")
    for known in range(len(words), 0, -1):
        entry = REASONS.get(":".join(words[:known]))
        if entry:
            detail = ":".join(words[known:]) or "(not said)"
            return f"{entry.meaning.replace('{}', detail)}. {entry.change}"
    return f"{UNKNOWN.meaning}. {UNKNOWN.change}"


def _trips(split: SplitReport) -> Iterator[str]:
    trips = sum(split.went_home.values())
    if not trips:
        return
    reasons = ", ".join(f"{why} {count}" for why, count in sorted(split.went_home.items(), key=lambda item: -item[1]))
    yield f"  Went home in the middle {trips} times: {reasons}."
    away, inside = split.seconds.total, split.seconds.in_mirror
    if split.calls.remote and trips > split.calls.remote and away - inside > inside:
        yield (
            "  That is more than once per call, and the way took longer than the work: no acceptor is fast enough to make "
            'that up. Split a function further inside, or give policy = "auto", which stops such calls from leaving.'
        )


def _cost(split: SplitReport) -> Iterator[str]:
    remote, moved = split.calls.remote, split.bytes
    each = split.seconds.total / remote
    inside = split.seconds.in_mirror / remote
    yield (
        f"  A remote call took {seconds_text(each)} on average, {seconds_text(inside)} of it in the mirror, "
        f"and moved {bytes_text(moved.out / remote)} out and {bytes_text(moved.back / remote)} back."
    )
    yield from _learning(split)
    if inside < WORTHWHILE_SHARE * each:
        yield (
            "  More than half of that time was the way there and back. If the function is quick at home, a guard that "
            'keeps small calls there wins (for example: guard = "n[0] >= 1000").'
        )


def _learning(split: SplitReport) -> Iterator[str]:
    later = split.calls.remote - 1
    first, last = split.first_call, split.last_call
    if first is None or last is None or later < 1:
        if split.pages.paged_in:
            yield (
                f"  {split.pages.paged_in} pages were fetched on demand. The working set is learned: later calls get "
                "such pages along with the call."
            )
        return
    per_call = max(split.pages.paged_in - first.paged_in, 0) / later
    yield (
        f"  The working set is learned: the first call took {seconds_text(first.seconds)}, fetched {first.paged_in} "
        f"pages on demand and moved {_moved(first)}; after it, {per_call:.3g} pages were fetched per call; the last "
        f"call took {seconds_text(last.seconds)} and moved {_moved(last)}."
    )
    if per_call >= MANY_PAGE_INS:
        yield (
            "  The calls after the first still fetch pages on demand. Memory hints in the profile send them along with "
            'the call: memory = [{ at = "a", bytes = "8 * n[0]" }].'
        )


def _moved(call: CallCost) -> str:
    return bytes_text(call.bytes_out + call.bytes_back)


def _verification(split: SplitReport) -> Iterator[str]:
    if split.diverged:
        yield (
            f"  {split.diverged} of {split.verified} verified calls DIVERGED: the acceptor's result was not the one "
            "computed at home. Do not trust this split point before that is understood."
        )
        yield f"  The first difference: {split.difference}."
    elif split.verified:
        yield f"  {_times(split.verified)} ran on both sides and agreed, floats within the profile's tolerance."
    for reason, count in sorted(split.unverified.items(), key=lambda item: -item[1]):
        yield f"  Not compared, {reason} ({_times(count)}): {unverified_text(reason)}"


def unverified_text(reason: str) -> str:
    """Why a call that was to be verified was not compared with what home made of it."""
    kind, _, detail = reason.partition(":")
    if kind in ("syscall", "signal", "fault"):
        return f"in the mirror it came to where it would have gone home ({kind} {detail}); that far it cannot be compared."
    return UNVERIFIED.get(reason) or f"no answer came that could be compared. {reason_text(reason)}"


def _times(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"
