"""Going home in the middle, and system calls: each line of it whole and split, also while acceptor and link are lost."""

import random
import threading

import pytest
from harness import Proxy, assert_same, kill_all, remote_total

LOST = {"acceptor-lost", "no-acceptor", "timeout"}


class Faults:
    """Runs a program split while what it needs is lost again and again, and asserts that it does what it does whole.

    The program does its thing ROUNDS times, at a pace that gives the faults time to come.
    """

    ROUNDS, PACE_MS, MOST_KILLS, MOST_CUTS = 100, 15, 12, 3

    def __init__(self, kind, work, acceptor, profile):
        self._runs_split = {"kills": self._with_kills, "cuts": self._with_cuts}[kind]
        self._work = work
        self._acceptor = acceptor
        self._profile = profile

    def same(self, argv, profile, reasons=frozenset()):
        """reasons: why calls run at home, besides a lost acceptor."""
        argv = [*argv, self.ROUNDS]
        whole = self._work.run_whole(argv)
        self._work.env["TARGET_PACE_MS"] = str(self.PACE_MS)
        split = self._runs_split(argv, self._profile(profile), random.Random(str(argv[1:])))
        assert_same(whole, split)
        seen = {reason for entry in split.report["splits"] for reason in entry["local_reasons"]}
        assert remote_total(split.report) > 0
        assert seen & LOST and seen <= LOST | {"nested"} | reasons, seen
        return split

    def _with_kills(self, argv, profile, generator):
        """kill -9 of the acceptor's sessions at random moments; the server stays."""
        session = self._work.start_split(argv, profile, acceptor=self._acceptor)
        over = threading.Event()
        killer = threading.Thread(target=self._kill, args=(generator, over))
        killer.start()
        try:
            split = self._work.finish(session.running, 60)
        finally:
            over.set()
            killer.join()
        split.report = session.report()
        return split

    def _kill(self, generator, over):
        left = self.MOST_KILLS
        while left and not over.wait(generator.random() * 0.1):
            sessions = self._acceptor.sessions()
            kill_all(sessions)
            left -= bool(sessions)

    def _with_cuts(self, argv, profile, generator):
        """Connection after connection ends at another byte; what comes after the last plan holds."""
        sizes = [generator.randrange(1 << generator.randrange(13, 19)) for _ in range(self.MOST_CUTS)]
        proxy = Proxy(self._acceptor.address, [(generator.choice(["up", "down"]), nbytes, "cut") for nbytes in sizes])
        try:
            return self._work.run_split(argv, profile, acceptor=proxy)
        finally:
            proxy.close()


@pytest.fixture(params=["kills", "cuts"])
def faults(request, work, acceptor, profile):
    return Faults(request.param, work, acceptor, profile)


def trips(result, name):
    return dict(result.split(name)["went_home"])


# -- files under mappings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("mode", ["inside", "outside", "part", "rewritten", "between", "stored"])
def test_file_changes_under_its_mapping(build, work, profile, mode, kind):
    """What is written to a mapped file is read away too, and what is cut off is SIGBUS, for the handler to repair."""
    split = work.same([build("truncated", library="truncated"), mode, kind], profile("truncated"))
    assert remote_total(split.report) == 15 and not any(entry["calls"]["local"] for entry in split.report["splits"])
    if mode == "inside":
        assert trips(split, "truncated_inside") == {"syscall:ftruncate": 3, "fault:SIGBUS": 3}


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_jump_out_of_a_cut_file(build, work, profile, kind):
    """The handler of SIGBUS, on a stack of its own, jumps out of the call."""
    split = work.same([build("truncated", library="truncated"), "jump", kind], profile("truncated"))
    assert split.remote("truncated_sum") == 12 and split.reasons("truncated_inside") == {"unsupported:fault:SIGBUS": 3}


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("mode", ["inside", "jump", "rewritten"])
def test_file_changes_under_faults(build, faults, mode, kind):
    """As above, with the acceptor or the link lost at any moment."""
    faults.same([build("truncated", library="truncated"), mode, kind], "truncated", {"unsupported:fault:SIGBUS"})


# -- ways out ----------------------------------------------------------------------------------------------------------


def same_unless(work, profile, argv, name, reasons):
    """Quietly: the calls run away, and if not, for those reasons."""
    split = work.same(argv, profile(name))
    seen = {reason for entry in split.report["splits"] for reason in entry["local_reasons"]}
    assert seen <= reasons, seen
    return split


UNWINDING = [
    ("throw", "unwinding_throw", 6),
    ("thread", "unwinding_exit_thread", 0),
    ("cancel", "unwinding_wait", 0),
    ("compute", "unwinding_compute", 0),
    ("deferred", "unwinding_compute", 0),
]


@pytest.mark.parametrize(("mode", "name", "remote"), UNWINDING)
def test_unwinding(build, work, profile, mode, name, remote):
    split = work.same([build("unwinding", library="unwinding"), mode], profile("unwinding"))
    print(split.split(name))


@pytest.mark.parametrize("mode", ["exit", "at_once"])
def test_unwinding_exit(build, work, profile, mode):
    split = work.same([build("unwinding", library="unwinding"), mode], profile("unwinding"))
    print(split.exit, split.split("unwinding_leave_process"))


@pytest.mark.parametrize("mode", ["robust", "inherit", "handed", "timed", "requeue"])
def test_locks(build, work, profile, mode):
    split = work.same([build("locks", library="locks"), mode], profile("locks"))
    for entry in split.report["splits"]:
        if entry["calls"]["remote"] + entry["calls"]["local"]:
            print(entry["name"], entry["calls"], entry["local_reasons"], entry["went_home"])
