"""What radium says on stderr while a job runs: events, errors, a live table, a summary.

Layer: beside core. Imports nothing of radium at run time; used by commands and cli. rich is imported only when
a table is really drawn.

Invariants: stdout is never touched, it belongs to the program. A stream that is gone (closed terminal, broken pipe)
loses radium's words and nothing else: nothing here raises OSError. Text of others (symbol names, file names)
reaches the terminal without control characters.
"""

import contextlib
import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from radium.report import Report, SplitReport

REDRAW_S = 0.25


def printable(text: str) -> str:
    """The text with every character that a terminal would obey rather than show written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def bytes_text(nbytes: float) -> str:
    """A number of bytes as people read it: `0 B`, `3.7 MB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 99.5 else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def seconds_text(seconds: float) -> str:
    """A time as people read it, three digits or so: `12 us`, `0.85 ms`, `3.2 s`."""
    if seconds < 99.5e-6:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"


class Table:
    """A place for the job's figures; this one shows nothing, for streams on which a table would be noise."""

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Take the table away."""

    def update(self) -> None:
        """Redraw if it is time to. Call it as often as you like: most calls only look at the clock."""


class Console:
    """radium's voice. quiet: errors only."""

    def __init__(self, quiet: bool, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._shown: LiveTable | None = None

    def event(self, text: str) -> None:
        """Say one thing that happened, as a line of its own."""
        if not self._quiet:
            self._line(text)

    def error(self, exc: BaseException) -> None:
        """Say what went wrong; heard even when quiet."""
        self._line(str(exc))

    def table(self, report: "Report", *, shared_terminal: bool = False) -> Table:
        """The live table of the report; enter it to show it, leave it to take it away.

        shared_terminal: the program writes to the same terminal, so that only plain lines keep both readable.
        """
        if self._quiet or shared_terminal or not self._can_redraw():
            return Table()
        return LiveTable(self, self._stream, report)

    def summary(self, report: "Report") -> None:
        """Say in one line per split point that was called what became of its calls, and count the others."""
        for split in _called(report):
            self.event(summary_line(split))
        idle = len(report.splits) - len(_called(report))
        if idle:
            self.event(f"{idle} split point{'s' * (idle > 1)} never called")

    def _can_redraw(self) -> bool:
        return self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def _line(self, text: str) -> None:
        line = f"radium: {printable(text)}"
        with contextlib.suppress(OSError):
            if self._shown is not None:
                self._shown.say(line)
            else:
                self._stream.write(line + "\n")
                self._stream.flush()


class LiveTable(Table):
    """A table by rich at the bottom of a terminal, redrawn in place by the caller's own thread.

    There is no refresh thread: ptrace and fork want a process with one thread.
    """

    def __init__(self, console: Console, stream: TextIO, report: "Report") -> None:
        from rich.console import Console as RichConsole
        from rich.live import Live

        self._console = console
        self._report = report
        self._began = time.monotonic()
        self._due = 0.0
        self._live = Live(
            console=RichConsole(file=stream, highlight=False, markup=False, emoji=False),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "LiveTable":
        with contextlib.suppress(OSError):
            self._live.start()
        self._console._shown = self
        self.update()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._console._shown = None
        with contextlib.suppress(OSError):
            self._live.stop()

    def update(self) -> None:
        """Redraw, at most four times a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + REDRAW_S
        with contextlib.suppress(OSError):
            self._live.update(self._render(now - self._began), refresh=True)

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._live.console.print(line, soft_wrap=True)

    def _render(self, elapsed_s: float) -> "RichTable":
        from rich.table import Table as RichTable

        table = RichTable(title=header_line(self._report, elapsed_s), title_justify="left")
        table.add_column("split")
        for column in ("remote", "local", "out", "back", "per call"):
            table.add_column(column, justify="right", no_wrap=True)
        for split in _called(self._report):
            table.add_row(*row(split))
        idle = len(self._report.splits) - table.row_count
        table.caption = f"{idle} more not called so far" if idle else None
        return table


def header_line(report: "Report", elapsed_s: float) -> str:
    """`radium  pid 12  ./app  at 127.0.0.1:7000  1:02`."""
    pids = " ".join(str(process.pid) for process in report.processes[:4]) or "-"
    program = " ".join(report.program)
    at = ", ".join(report.acceptors) or "no acceptor"
    minutes, seconds = divmod(int(elapsed_s), 60)
    return printable(f"radium  pid {pids}  {program[:60]}  at {at}  {minutes}:{seconds:02}")


def row(split: "SplitReport") -> tuple[str, str, str, str, str, str]:
    """The cells of one split point: name, remote, local with its top reason, bytes out, back, time per remote call."""
    local = str(split.calls.local)
    if split.local_reasons:
        local += f" ({printable(top_reason(split))})"
    if split.diverged:
        local += f" {split.diverged} DIVERGED"
    per_call = seconds_text(split.seconds.total / split.calls.remote) if split.calls.remote else "-"
    out, back = bytes_text(split.bytes.out), bytes_text(split.bytes.back)
    return printable(split.name), str(split.calls.remote), local, out, back, per_call


def summary_line(split: "SplitReport") -> str:
    """`NAME: 12 remote, 3 local (guard 3), 3.7 MB out, 2.1 MB back, 75 ms per remote call`."""
    line = f"{split.name}: {split.calls.remote} remote, {split.calls.local} local"
    if split.local_reasons:
        reasons = sorted(split.local_reasons.items(), key=lambda item: -item[1])
        line += f" ({', '.join(f'{reason} {count}' for reason, count in reasons)})"
    if split.calls.remote:
        line += f", {bytes_text(split.bytes.out)} out, {bytes_text(split.bytes.back)} back"
        line += f", {seconds_text(split.seconds.total / split.calls.remote)} per remote call"
    if split.verified or split.unverified:
        line += f", {split.verified} verified" + (f", {split.diverged} DIVERGED" if split.diverged else "")
    return line


def top_reason(split: "SplitReport") -> str:
    """The reason that most local calls had; local_reasons must not be empty."""
    return max(split.local_reasons, key=split.local_reasons.__getitem__)


def _called(report: "Report") -> list["SplitReport"]:
    return [split for split in report.splits if split.calls.remote or split.calls.local]
