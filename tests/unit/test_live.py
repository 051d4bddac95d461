import io
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium import live
from radium.errors import JobFailed
from radium.live import Console, LiveTable, bytes_text, printable, seconds_text
from radium.report import ProcessReport, Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(Terminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.fixture(autouse=True)
def _capable_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")


def busy_report() -> Report:
    report = Report("0.1.0", ["./app"], ["private"], [ProcessReport(42, None)], [])
    split = report.split("libblas.so.3:dgemm_", "mirror", "breakpoint")
    split.count_remote(1, 2, 3, 3_700_000, 2_100_000, 0.075, 0.07)
    for reason in ("guard", "guard", "timeout"):
        split.count_local(reason)
    report.split("libblas.so.3:dsyrk_", "mirror", "breakpoint")
    return report


def test_event_is_one_marked_line():
    """An event is one line that begins with the name of the program that speaks."""
    stream = io.StringIO()
    Console(False, stream).event("attached to pid 42")
    assert stream.getvalue() == "radium: attached to pid 42\n"


def test_quiet_says_errors_only():
    """--quiet leaves errors and nothing else, on a terminal too."""
    stream = Terminal()
    console = Console(True, stream)
    console.event("attached")
    console.summary(busy_report())
    with console.table(busy_report()) as table:
        table.update()
    console.error(JobFailed("it broke", where="here", advice="mend it"))
    assert stream.getvalue() == "radium: here: it broke; mend it\n"


def test_summary_names_counts_and_reasons():
    """The summary has one line per called split point and counts those that were never called."""
    stream = io.StringIO()
    Console(False, stream).summary(busy_report())
    assert stream.getvalue().splitlines() == [
        "radium: libblas.so.3:dgemm_: 1 remote, 3 local (guard 2, timeout 1), 3.7 MB out, 2.1 MB back, "
        "75 ms per remote call",
        "radium: 1 split point never called",
    ]


@pytest.mark.parametrize("stream, shared", [(io.StringIO(), False), (Terminal(), True)])
def test_no_table_where_it_would_be_noise(stream, shared):
    """A pipe, or a terminal that the program writes to as well, sees no table."""
    with Console(False, stream).table(busy_report(), shared_terminal=shared) as table:
        table.update()
    assert stream.getvalue() == ""


def test_dumb_terminal_gets_no_table(monkeypatch):
    """A terminal that cannot move its cursor sees no table."""
    monkeypatch.setenv("TERM", "dumb")
    assert not isinstance(Console(False, Terminal()).table(busy_report()), LiveTable)


def test_table_shows_the_job():
    """The live table shows process, program, acceptor and the figures of each called split point."""
    stream = Terminal()
    with Console(False, stream).table(busy_report()):
        pass
    shown = stream.getvalue()
    for part in ("pid 42", "./app", "private", "dgemm_", "3 (guard)", "3.7 MB", "2.1 MB", "75 ms", "1 more not called"):
        assert part in shown


def test_event_under_a_table_keeps_its_line():
    """A line said while the table is shown stands on its own, above it."""
    stream = Terminal()
    console = Console(False, stream)
    with console.table(busy_report()):
        console.event("acceptor lost")
    assert "radium: acceptor lost\n" in stream.getvalue().replace("\x1b[2K", "").replace("\r", "")


def test_redraws_at_most_four_times_a_second(monkeypatch):
    """However often update is called, a second of clock has at most four redraws."""
    clock = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    with Console(False, Terminal()).table(busy_report()) as table:
        drawn = []
        monkeypatch.setattr(table, "_render", lambda elapsed_s: drawn.append(elapsed_s) or "")
        for step in range(1000):
            clock[0] = 1000.001 + step / 1000
            table.update()
    assert 3 <= len(drawn) <= 4


def test_throttled_update_is_cheap():
    """An update that redraws nothing costs about a look at the clock."""
    with Console(False, Terminal()).table(busy_report()) as table:
        best = min(timeit.repeat(table.update, number=1000, repeat=5))
    assert best / 1000 < 2e-6


def test_terminal_that_is_gone_is_no_error():
    """A job outlives the terminal that it was started from."""
    console = Console(False, Gone())
    with console.table(busy_report()) as table:
        console.event("attached")
        table.update()
    console.error(JobFailed("it broke"))


@given(st.text())
def test_printable_has_no_control_characters(text):
    """Nothing that a terminal obeys survives, and plain text stays as it is."""
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    "nbytes, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (3.7e9, "3.7 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_bytes_text(nbytes, text):
    """Bytes are said with two or three digits and the unit that fits."""
    assert bytes_text(nbytes) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0 us"), (12e-6, "12 us"), (0.00085, "0.85 ms"), (0.075, "75 ms"), (3.21, "3.21 s"), (1234, "1234 s")],
)
def test_seconds_text(seconds, text):
    """Times are said with about three digits and the unit that fits."""
    assert seconds_text(seconds) == text
