"""DESIGN.md section 4: invariants that need a whole session to be seen; the others have tests of their own (ARCHITECTURE.md)."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.harness import descendants_named, poll_until, split_of, thread_states

NBYTES = 64 * 4096


def memory(pid, address, nbytes=NBYTES):
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        file.seek(address)
        return file.read(nbytes)


def addresses(running):
    match = running.err.wait_for(r"buffer (0x\w+) secret (0x\w+)")
    return int(match[1], 16), int(match[2], 16)


def maps_of(pid):
    return Path(f"/proc/{pid}/maps").read_text()


def is_computing(pid, ticks=5):
    """Whether a mirror below the process has used CPU time: its call is under way."""
    return any(
        int(Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11]) >= ticks
        for one in descendants_named(pid, "radium-mirror")
    )


def test_nothing_changes_before_the_commit(build, work, profile, acceptor):
    """While a call is away no byte, mapping or descriptor of the tracee changes, and a call that is killed there leaves no trace."""
    program = build("slow", library="slow")
    whole = work.run_whole([program])
    target = work.start([program], hold=True)
    buffer, _ = addresses(target)
    session = work.attach(target.pid, profile("slow"), acceptor=acceptor)
    target.release()
    poll_until(lambda: is_computing(acceptor.running.pid), "a call under way")
    assert set(thread_states(target.pid).values()) == {"t"}
    before = maps_of(target.pid), sorted(os.listdir(f"/proc/{target.pid}/fd"))
    assert memory(target.pid, buffer) == b"\x07" * NBYTES
    poll_until(lambda: is_computing(acceptor.running.pid, 20), "more of it")
    assert memory(target.pid, buffer) == b"\x07" * NBYTES
    assert (maps_of(target.pid), sorted(os.listdir(f"/proc/{target.pid}/fd"))) == before
    acceptor.kill_sessions()
    assert target.check_success().replace("READY\n", "") == whole.stdout.replace("READY\n", "")
    report = session.ended()
    assert split_of(report, "slow_fill")["local_reasons"] == {"acceptor-lost": 1}


@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
@pytest.mark.parametrize("seed", [2, 40])
def test_held_pages_equal_their_twins(build, work, profile, monkeypatch, tracking, seed):
    """After every commit each held page is the same on both sides, whatever both did to their memory."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    program = [build("memory", library="memory"), seed, 1, 80]
    split = work.same(program, profile("memory"), "--tracking", tracking)
    assert "differs from its twin" not in split.stderr
    assert sum(one["calls"]["remote"] for one in split.report["splits"]) > 20


def test_every_page_that_left_is_listed(build, work, profile, tmp_path):
    """The list names what the call needed, and memory that it did not need has not left."""
    listed = tmp_path / "pages"
    target = work.start_split([build("slow", library="slow"), 3], profile("slow"), "--list-pages", listed)
    buffer, secret = addresses(target.running)
    assert target.running.wait() == 0
    runs = [re.match(r"([0-9a-f]+)-([0-9a-f]+)( \S.*)?$", line) for line in listed.read_text().splitlines()]
    pages = {page for run in runs for page in range(int(run[1], 16), int(run[2], 16), 4096)}
    assert set(range(buffer, buffer + NBYTES, 4096)) <= pages
    assert not pages & set(range(secret, secret + NBYTES, 4096))


def test_a_detached_tracee_is_as_it_was_found_during_a_call(build, work, profile, acceptor):
    """Ctrl-C while a call is away recalls it: the call runs at home, and nothing of radium's is left."""
    program = build("slow", library="slow")
    target = work.start([program], hold=True)
    addresses(target)
    session = work.attach(target.pid, profile("slow"), acceptor=acceptor)
    target.release()
    poll_until(lambda: is_computing(acceptor.running.pid), "a call under way")
    report = session.detach(signal.SIGINT)
    assert split_of(report, "slow_fill")["local_reasons"] == {"refused:detaching": 1}
    assert target.check_success()
