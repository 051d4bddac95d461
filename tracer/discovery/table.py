"""What a trace has found, on a terminal: a ranked table, how it was measured, and what to do next."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from radium.live import bytes_text, printable, seconds_text
from radium.tracer.discovery.findings import Candidate, Findings, Link, Samples, Verdict

# Blue gains, yellow may one day: told apart without red and green, and by their words.
STYLES: dict[Verdict, str] = {"ready": "bold blue", "with guard": "cyan", "not yet": "yellow", "no": "dim"}
UNKNOWN = "-"
# Of a pipe or a file: wide enough for most names, narrow enough for a mail.
PLAIN_WIDTH = 100


def show(findings: Findings, stream: TextIO, next_step: str, width: int | None = None) -> None:
    """Draw it all. next_step: the last line; width: in columns, the terminal's by default. Raises OSError of the stream."""
    if width is None and not stream.isatty():
        width = PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    if findings.candidates:
        console.print(_table(findings.candidates))
        console.print()
    for line in (*guards(findings.candidates), *measured(findings)):
        console.print(Text(line))
    console.print(Text(printable(next_step), style="bold"), soft_wrap=True)


def advice(findings: Findings, profile: str | None, pid: int | None) -> str:
    """What to do next, in one line. profile: the file that was written; pid: the program, None if it has ended."""
    if not findings.best() and not findings.possible():
        return f"nothing to split: {why_nothing(findings)}"
    if not findings.best():
        then = f"; with a faster acceptor: {_command(findings, profile, pid, 'HOST:PORT')}" if profile else ""
        return f"nothing gains yet: {why_nothing(findings)}{then}"
    if profile is None:
        return "next: give -o FILE.toml for a profile of what is ready"
    acceptor = "" if findings.link.acceptor == "private" else findings.link.acceptor
    return f"next: {_command(findings, profile, pid, acceptor)}"


def _command(findings: Findings, profile: str, pid: int | None, acceptor: str) -> str:
    """That splits it. acceptor: "" for a private one."""
    where = ["--acceptor", acceptor] if acceptor else []
    if pid is not None:
        return shlex.join(["radium", "attach", "--pid", str(pid), "--split", profile, *where])
    return shlex.join(["radium", "run", "--split", profile, *where, "--", *findings.program])


def why_nothing(findings: Findings) -> str:
    """Why no split was found, of the function that takes most of the time; it may not be called if one was."""
    if not findings.samples.taken:
        return "the program did not run while it was watched; watch it for longer, or while it works"
    if not findings.candidates:
        return "its time is in no function that can be named from outside (exported, or Python's)"
    possible = [candidate for candidate in findings.candidates if candidate.verdict == "not yet"]
    best = max(possible or findings.candidates, key=lambda candidate: candidate.inclusive)
    reason = best.reason or "it does not gain"
    kind = "over this link and acceptor, not yet" if possible else "no"
    return f"{best.name}, {percent(best.inclusive)} of the time: {kind} ({reason})"


def guards(candidates: Sequence[Candidate]) -> Iterator[str]:
    """One line for each guard that is proposed."""
    for candidate in candidates:
        if candidate.guard:
            wins = f", it wins from {candidate.size or 'size'} = {candidate.break_even:.3g}" if candidate.break_even else ""
            yield printable(f"guard of {candidate.name}: {candidate.guard}{wins}")


def measured(findings: Findings) -> Iterator[str]:
    """How it was measured, a line for each step, and the notes."""
    yield samples_text(findings.samples, findings.duration_s)
    yield overhead_text(findings)
    yield link_text(findings.link)
    yield from (f"note: {printable(note)}" for note in findings.notes)


def samples_text(samples: Samples, duration_s: float) -> str:
    """`998 samples in 10 s (perf events, 99 Hz), 12 of them (1.2 %) not unwound, 40 in Python`."""
    lost = f"{samples.not_unwound} of them ({percent(samples.not_unwound / max(samples.taken, 1))}) not unwound"
    return (
        f"{samples.taken} samples in {seconds_text(duration_s)} ({samples.way}, {samples.frequency:g} Hz), {lost}, "
        f"{samples.python} in Python"
    )


def overhead_text(findings: Findings) -> str:
    """What the trace took of the program's time, of each step that was made."""
    overhead = findings.overhead
    parts = [f"{percent(overhead.sampling)} while it was sampled"]
    if overhead.counting is not None:
        parts.append(f"{percent(overhead.counting)} while calls were counted")
    if overhead.trying_s is not None:
        parts.append(f"{seconds_text(overhead.trying_s)} in all for trying calls")
    return f"overhead on the program: {', '.join(parts)}"


def link_text(link: Link) -> str:
    """The way that predictions are for."""
    way = f"round trip {seconds_text(link.rtt_s)}, {bytes_text(link.bytes_per_s)}/s"
    return f"predicted for {printable(link.acceptor)}: {way} ({link.origin})"


def percent(share: float, *, signed: bool = False) -> str:
    """A share as people read it: `0.3 %`, `72 %`, `+64 %`."""
    value = share * 100
    digits = 1 if 0 < abs(value) < 9.95 else 0
    return f"{value:{'+' if signed else ''}.{digits}f} %"


def number(mean: float) -> str:
    """A mean as people read it: `0`, `0.25`, `12`, `1200`."""
    return f"{mean:.0f}" if mean >= 99.5 else f"{mean:.2g}"


def _table(candidates: Sequence[Candidate]) -> Table:
    """Two lines for each: what belongs together stands one below the other, and all fits into 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("function\nof", overflow="fold", min_width=12)
    for heading in ("time\ncalls", "out\nback", "syscalls\nper call", "here\nthere", "gain\n "):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict\nreason", overflow="fold", min_width=10)
    for candidate in candidates:
        table.add_row(*cells(candidate))
    return table


def cells(candidate: Candidate) -> tuple[Text, ...]:
    """Function and library, share and calls, bytes out and back, system calls, time here and there, gain, verdict."""
    trial = candidate.trial
    owner, function = _owner(candidate)
    moved = (bytes_text(trial.bytes_out), bytes_text(trial.bytes_back)) if trial else (UNKNOWN, UNKNOWN)
    syscalls = number(sum(trial.syscalls.values())) if trial else UNKNOWN
    pairs = [
        (function, owner),
        (percent(candidate.inclusive), UNKNOWN if candidate.calls is None else f"{candidate.calls}"),
        moved,
        (syscalls, ""),
        (_seconds(candidate.here_s), _seconds(candidate.there_s)),
        (UNKNOWN if candidate.gain is None else percent(candidate.gain, signed=True), ""),
    ]
    texts = [Text(f"{printable(first)}\n{printable(second)}".rstrip("\n")) for first, second in pairs]
    verdict = Text(candidate.verdict, style=STYLES[candidate.verdict])
    if candidate.reason:
        verdict.append(f"\n{printable(candidate.reason)}", style="default")
    return (*texts, verdict)


def _owner(candidate: Candidate) -> tuple[str, str]:
    """The library and the function in it, or the module of a Python function."""
    if candidate.library:
        return candidate.name.removesuffix(f":{candidate.function}"), candidate.function
    module, _, function = candidate.function.rpartition(":")
    return f"python:{module}", function


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else seconds_text(seconds)
