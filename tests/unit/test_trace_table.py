"""The table of a trace, and what stands below it."""

import io

import pytest
from found import candidates, findings
from hypothesis import given
from hypothesis import strategies as st

from radium.tracer.discovery import table
from radium.tracer.discovery.findings import Candidate, Node, Samples


def drawn(found, width=None, next_step="next: go on"):
    stream = io.StringIO()
    table.show(found, stream, next_step, width)
    return stream.getvalue()


def test_80_columns():
    """All figures of each candidate fit, and are said to be what they are."""
    lines = drawn(findings(), 80).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    rows = [line.split() for line in lines]
    assert ["function", "time", "out", "syscalls", "here", "gain", "verdict"] in rows
    assert ["dgemm_", "33", "%", "3.7", "MB", "0", "5.5", "ms", "+18", "%", "with", "guard"] in rows
    assert ["libblas.so.3", "1204", "2.1", "MB", "2.5", "ms", "small", "calls", "lose"] in rows
    assert ["report", "4.8", "%", "400", "kB", "1203", "320", "ms", "-6.0", "%", "no"] in rows
    assert ["qsort", "2.1", "%", "-", "-", "-", "-", "no"] in rows


def test_ranked_as_found():
    """The order is that of the findings."""
    text = drawn(findings(), 120)
    places = [text.index(f" {name} " if name == "fit" else name) for name in ("KMeans.fit", "dgemm_", "dgetrf_", "deflate")]
    assert places == sorted(places)


def test_what_stands_below():
    """Guards, how it was measured, notes, and what to do."""
    text = drawn(findings(), 200)
    assert "guard of libblas.so.3:dgemm_: m[0] * n[0] * k[0] >= 2**21, it wins from m[0] * n[0] * k[0] = 2.1e+06" in text
    assert "2000 samples in 20.2 s (perf events, 99 Hz), 31 of them (1.6 %) not unwound, 1700 in Python" in text
    assert "overhead on the program: 1.2 % while it was sampled, 4.3 % while calls were counted, 2.4 s in all for" in text
    assert "predicted for 10.0.0.2:7000: round trip 0.12 ms, 1.2 GB/s (measured)" in text
    assert "note: 2 threads ended" in text and text.endswith("next: go on\n")


def test_plain_where_no_terminal_is():
    """A pipe gets no escape sequences; neither do names that hold some reach a terminal, nor markup."""
    found = findings()
    found.candidates[0].function = "m:\x1b[31m[red]x[/red]\n"
    text = drawn(found)
    assert "\x1b" not in text and "[red]x[/red]" in text


@given(st.text(), st.text(), st.text())
def test_hostile_names(name, reason, guard):
    """Whatever a name is made of, no character that a terminal obeys comes through."""
    text = drawn(findings(candidates=[Candidate(name, name, name, 0.5, 0.5, reason=reason, guard=guard)], notes=[name]), 80)
    assert text.replace("\n", "").isprintable()


def test_next_step():
    """The command to type, for a program that runs, one that has ended, and one without a profile so far."""
    found = findings()
    attach = "next: radium attach --pid 4711 --split 'my split.toml' --acceptor 10.0.0.2:7000"
    assert table.advice(found, "my split.toml", 4711) == attach
    found.link.acceptor, found.link.origin = "private", "this machine"
    assert table.advice(found, "s.toml", None) == "next: radium run --split s.toml -- python3 study.py --rounds 12"
    assert "-o FILE.toml" in table.advice(found, None, 4711)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"candidates": candidates()[2:]}, "nothing gains yet: libopenblas.so.0:dgetrf_, 10 % of the time: over this link and acc"),
        ({"candidates": candidates()[3:]}, "nothing to split: libz.so.1:deflate, 6.2 % of the time: no (too short)"),
        ({"candidates": []}, "nothing to split: its time is in no function that can be named from outside"),
        ({"candidates": [], "samples": Samples("ptrace", 20, 0, 0, 0), "tree": Node("all", 0)}, "nothing to split: the program did not run"),
    ],
)
def test_why_nothing(changes, why):
    """If there is nothing to split, the reason is that of the function that takes most of the time."""
    found = findings(**changes)
    step = table.advice(found, "s.toml", 1)
    assert step.startswith(why)
    assert step in drawn(found, 200, step)
