"""The profile that a trace writes: TOML that `radium attach` takes as it is, with what was measured as comments.

Invariant: whatever the names in it are, the text passes `radium profiles check`, and says what the findings say.
"""

import os
from collections.abc import Iterator

from radium.core.places import Place
from radium.errors import ProfileError
from radium.live import bytes_text, printable, seconds_text
from radium.profiles.schema import MAX_NAME, MAX_NBYTES, MAX_NPLACES, loads
from radium.tracer.discovery import table
from radium.tracer.discovery.findings import Candidate, Findings

# Arbitrary: they keep the whole well below MAX_NBYTES, and a working set is mostly in its largest pieces.
MOST_PLACES = min(1000, MAX_NPLACES)
MOST_SPLITS_NBYTES = MAX_NBYTES * 3 // 4
MOST_LEFT_OUT = 100
LONGEST_COMMENT = 200


def text(findings: Findings) -> str | None:
    """The profile; None when there is nothing to split, as a profile without splits is none."""
    splits, left_out, nbytes = [], [], 0
    for candidate in findings.candidates:
        why_not = _why_not(candidate)
        entry = "" if why_not else _split(candidate)
        if nbytes + len(entry.encode()) > MOST_SPLITS_NBYTES:
            why_not = "the profile would be too large"
        if why_not:
            left_out.append(_comment(f"{candidate.name}, {table.percent(candidate.inclusive)} of the time: {why_not}"))
        else:
            splits.append(entry)
            nbytes += len(entry.encode())
    if not splits:
        return None
    parts = ["\n".join(_head(findings)), *splits]
    if left_out:
        parts.append("\n".join(["# Not taken:", *left_out[:MOST_LEFT_OUT]]))
    return "\n\n".join(parts) + "\n"


def _why_not(candidate: Candidate) -> str:
    """Why it is no split of the profile; "" if it is one."""
    # What is not worth it yet may be so on another acceptor: then its cost decides for it, and keeps it at home till then.
    if candidate.verdict == "no" or (candidate.verdict == "not yet" and candidate.there_s is None):
        return f"{candidate.verdict} ({candidate.reason or 'no reason known'})"
    if candidate.verdict == "with guard" and not candidate.guard:
        return "no guard could be found that tells the calls that gain"
    try:
        loads(_split(candidate), "a profile")
    except ProfileError as error:
        return f"it cannot be written in a profile ({error})"
    return ""


def _head(findings: Findings) -> Iterator[str]:
    program = " ".join(findings.program)
    name = printable(os.path.basename(findings.program[0]))[:MAX_NAME].strip() if findings.program else ""
    yield _comment(f"What `radium trace` (radium {findings.radium}) found in {program or 'a program'}.")
    for line in table.measured(findings):
        yield _comment(line)
    yield "#"
    yield '# policy = "auto": a trace has seen a few calls on one day; from now on their cost decides, and none loses for long.'
    yield f"name = {_string(name or 'traced')}"
    yield f"title = {_string('Found by radium trace in ' + (name or 'a program'))}"


def _split(candidate: Candidate) -> str:
    """Its [[split]] table, with why."""
    lines = [*(_comment(line) for line in _why(candidate)), "[[split]]"]
    if candidate.library:
        lines += [f"library = {_string(candidate.library)}", f"function = {_string(candidate.function)}"]
        if candidate.signature:
            lines.append(f"signature = {_string(candidate.signature)}")
    else:
        lines.append(f"python = {_string(candidate.function)}")
    if candidate.guard:
        lines.append(f"guard = {_string(candidate.guard)}")
    if candidate.library and candidate.memory:
        hints = (f"  {{ at = {_string(at)}, bytes = {_string(nbytes)} }},\n" for at, nbytes in candidate.memory)
        lines.append(f"memory = [\n{''.join(hints)}]")
    if places := _largest(candidate.working_set):
        lines.append("# What its calls touched besides, sent with the first one.")
        lines.append(f"working_set = [\n{''.join(map(_place, places))}]")
    lines.append('policy = "auto"')
    return "\n".join(lines)


def _why(candidate: Candidate) -> Iterator[str]:
    """What was measured of it."""
    calls = "" if candidate.calls is None else f", {candidate.calls} calls in {seconds_text(candidate.watched_s)}"
    reason = f" ({candidate.reason})" if candidate.reason else ""
    yield f"{candidate.name}: {candidate.verdict}{reason}, {table.percent(candidate.inclusive)} of the time{calls}."
    if candidate.here_s is not None and candidate.there_s is not None:
        gain = "" if candidate.gain is None else f", {table.percent(candidate.gain, signed=True)} of the program's time"
        yield f"A call takes {seconds_text(candidate.here_s)} here, predicted {seconds_text(candidate.there_s)} there{gain}."
    if trial := candidate.trial:
        goes = ", ".join(f"{name} {table.number(count)}" for name, count in trial.syscalls.items()) or "none"
        yield (
            f"Tried {trial.calls} times: {bytes_text(trial.bytes_out)} out, {bytes_text(trial.bytes_back)} back, "
            f"system calls at home: {goes}; {_equality(trial.equal, trial.difference)}."
        )
    if candidate.guard and candidate.break_even is not None:
        yield f"The guard is where it begins to win: {candidate.size or 'size'} = {candidate.break_even:.3g}."


def _equality(equal: bool | None, difference: str) -> str:
    if equal is None:
        return "results could not be compared"
    return "results equal" if equal else f"RESULTS DIFFER: {difference}"


def _largest(places: list[Place]) -> list[Place]:
    """As many as a profile takes, of those that it can name; in their order."""
    nameable = [place for place in places if place.mapping.strip() and place.mapping.isprintable() and "/" not in place.mapping]
    least = sorted((place.nbytes for place in nameable), reverse=True)[:MOST_PLACES][-1:]
    return [place for place in nameable if place.nbytes >= least[0]][:MOST_PLACES]


def _place(place: Place) -> str:
    offset = f"{place.offset:#x}" if place.offset >= 0 else str(place.offset)
    return f"  {{ mapping = {_string(place.mapping)}, offset = {offset}, bytes = {place.nbytes} }},\n"


def _comment(line: str) -> str:
    return f"# {printable(line)[:LONGEST_COMMENT]}".rstrip()


def _string(value: str) -> str:
    """A basic string (TOML 1.0.0, "String"): control characters, quotes and backslashes as escapes."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
