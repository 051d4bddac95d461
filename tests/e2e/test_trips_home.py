"""Going home in the middle, and system calls: each line of it whole and split, also while acceptor and link are lost."""

import os
import random
import signal
import threading
import time

import pytest
from harness import Proxy, assert_same, descendants_named, kill_all, poll_until, remote_total, split_of

LOST = {"acceptor-lost", "no-acceptor", "timeout"}


class Faults:
    """Runs a program split while what it needs is lost again and again, and asserts that it does what it does whole.

    The program does its thing again and again, at a pace that gives the faults time to come.
    """

    PACE_MS, MOST_KILLS, MOST_CUTS = 15, 12, 4

    def __init__(self, kind, work, acceptor, profile):
        self._runs_split = {"kills": self._with_kills, "cuts": self._with_cuts}[kind]
        self._work = work
        self._acceptor = acceptor
        self._profile = profile
        self._nfaults = 0

    def same(self, argv, profile, reasons=frozenset(), rounds=100):
        """reasons: why calls run at home, besides a lost acceptor."""
        argv = [*argv, rounds]
        whole = self._work.run_whole(argv)
        self._work.env["TARGET_PACE_MS"] = str(self.PACE_MS)
        split = self._runs_split(argv, self._profile(profile), random.Random(str(argv[1:])))
        assert_same(whole, split)
        seen = {reason for entry in split.report["splits"] for reason in entry["local_reasons"]}
        assert self._nfaults > 0
        assert seen <= LOST | {"nested"} | reasons, seen
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
        while self._nfaults < self.MOST_KILLS and not over.wait(generator.random() * 0.3):
            sessions = self._acceptor.sessions()
            kill_all(sessions)
            self._nfaults += bool(sessions)

    def _with_cuts(self, argv, profile, generator):
        """Connection after connection ends at another byte; what comes after the last plan holds."""
        sizes = [generator.randrange(1 << generator.randrange(12, 18)) for _ in range(self.MOST_CUTS)]
        proxy = Proxy(self._acceptor.address, [(generator.choice(["up", "down"]), nbytes, "cut") for nbytes in sizes])
        try:
            return self._work.run_split(argv, profile, acceptor=proxy)
        finally:
            self._nfaults = len(proxy.done)
            proxy.close()


def slow(*modes):
    """These are for `scripts/test --all`."""
    return [pytest.param(mode, marks=pytest.mark.slow) for mode in modes]


@pytest.fixture(params=["kills", pytest.param("cuts", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("kind", ["private", pytest.param("shared", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["inside", *slow("jump", "rewritten")])
def test_file_changes_under_faults(build, faults, mode, kind):
    """As above, with the acceptor or the link lost at any moment."""
    faults.same([build("truncated", library="truncated"), mode, kind], "truncated", {"unsupported:fault:SIGBUS"})


# -- signals -----------------------------------------------------------------------------------------------------------


def check_interrupted(split, name):
    """Six calls; one whose signal came before its first instruction is made at home."""
    assert split.remote(name) >= 1 and split.remote(name) + split.local(name) == 6
    assert all(reason.startswith("unsupported:signal:") for reason in split.reasons(name))


@pytest.mark.parametrize("mode", ["alarm", "prof", "real"])
def test_timers_among_trips(build, work, profile, mode):
    """Timers of all kinds ring while calls compute and while they print."""
    split = work.same([build("interrupts", library="interrupts"), mode], profile("interrupts"))
    check_interrupted(split, "interrupts_speak")
    assert trips(split, "interrupts_speak")["syscall:write"] == 2 * split.remote("interrupts_speak")


def test_a_handler_ends_the_call(build, work, profile):
    """A call that computes until the handler of its own timer says so ends, and remotely."""
    split = work.same([build("interrupts", library="interrupts"), "late"], profile("interrupts"))
    check_interrupted(split, "interrupts_compute")
    assert trips(split, "interrupts_compute") == {"signal:SIGALRM": 6}


@pytest.mark.parametrize(("mode", "said", "remote"), [("flag", "ended", 12), ("jump", "jumped", 0)])
def test_termination_is_handled(build, work, profile, mode, said, remote):
    """SIGTERM from outside recalls a call that is away; its handler ends the call, or jumps out of it."""
    command = [build("interrupts", library="interrupts"), mode, 12]
    session = work.start_split(command, profile("interrupts"))
    (pid,) = told(session, "waiting 0", "interrupts")
    latencies = []
    for n in range(12):
        session.running.out.wait_for(f"waiting {n}$")
        time.sleep(0.1)  # some way into the call
        sent = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        if mode == "jump":
            session.running.out.wait_for(said, after=session.running.out.seen.index(f"waiting {n}"))
            latencies.append(time.monotonic() - sent)
    split = work.finish(session.running)
    split.report = session.report()
    assert split.exit == 0 and split.stdout.count(said) == 12 and split.stdout.endswith("EXIT-SUCCESS")
    assert split.remote("interrupts_compute") == remote
    assert trips(split, "interrupts_compute") == {"signal:SIGTERM": 12}
    # Within 20 ms, and the rest is for the handler's line; on a busy machine only the best of many tells.
    assert not latencies or min(latencies) < 0.04, latencies


def told(session, line, name):
    session.running.out.wait_for(f"^{line}$")
    return descendants_named(session.running.pid, name)


@pytest.mark.parametrize("to_all", [True, False], ids=["terminal", "program"])
def test_interrupted_in_a_long_call(build, work, profile, to_all):
    """Ctrl-C ends a program whose call of a minute and more is away within a second, as it does without radium."""
    command = [build("stops", library="stops"), 10**9]
    whole = work.popen(command)
    whole.out.wait_for("^computing$")
    whole.kill(signal.SIGINT)
    session = work.start_split(command, profile("stops"))
    (pid,) = told(session, "computing", "stops")
    time.sleep(0.3)  # some way into the call
    sent = time.monotonic()
    for each in (session.running.pid, pid) if to_all else (pid,):
        os.kill(each, signal.SIGINT)
    assert session.running.wait() == whole.wait() == 128 + signal.SIGINT
    assert time.monotonic() - sent < 1
    assert session.running.out.finish() == "READY\ncomputing"
    split = split_of(session.report(), "stops_compute")
    assert split["calls"] == {"remote": 0, "local": 1}


@pytest.mark.parametrize("mode", ["alarm", "prof", "real", *slow("late")])
def test_timers_under_faults(build, faults, mode):
    """As above, with the acceptor or the link lost at any moment."""
    reasons = {"unsupported:signal:SIGALRM", "unsupported:signal:SIGRTMIN"}
    program = [build("interrupts", library="interrupts"), mode]
    faults.same(program, "interrupts", reasons, rounds=40 if mode == "late" else 100)


@pytest.mark.parametrize("mode", ["segv", "repair", "fpe", "ill", "mask", *slow("jump")])
def test_signals_under_faults(build, faults, mode):
    """Handlers that jump out, and true faults, with the acceptor or the link lost at any moment."""
    reasons = {"unsupported:signal:SIGALRM", "unsupported:fault:SIGSEGV", "unsupported:fault:SIGFPE", "unsupported:fault:SIGILL"}
    faults.same([build("signals", library="work"), mode], "work", reasons, rounds=60)


# -- ways out ----------------------------------------------------------------------------------------------------------


def test_exceptions_among_prints(build, work, profile):
    """Exceptions thrown in a call, rethrown, caught within and outside, while its destructors print."""
    split = work.same([build("unwinding", library="unwinding"), "throw"], profile("unwinding"))
    assert split.remote("unwinding_throw") == 6
    assert trips(split, "unwinding_throw") == {"syscall:write": 36, "exception": 2}


def test_thread_ends_itself_among_prints(build, work, profile):
    """pthread_exit unwinds the frames of the call and of its callers: destructors and cleanup handlers, each once."""
    split = work.same([build("unwinding", library="unwinding"), "thread"], profile("unwinding"))
    assert split.remote("unwinding_exit_thread") == 6


@pytest.mark.parametrize("mode", ["cancel", "compute", "deferred"])
def test_cancelled_in_a_call(build, work, profile, mode):
    """pthread_cancel of a thread that sleeps or computes in a call."""
    split = work.same([build("unwinding", library="unwinding"), mode], profile("unwinding"))
    assert split.stdout.count("joined -1 1") == 6


@pytest.mark.parametrize(("mode", "status"), [("exit", 9), ("at_once", 109)])
def test_another_thread_ends_the_program(build, work, profile, mode, status):
    """exit and _exit by a thread that the call has made."""
    split = work.same([build("unwinding", library="unwinding"), mode], profile("unwinding"))
    assert split.exit == status
    assert split.split("unwinding_leave_process")["calls"] == {"remote": 0, "local": 1}


def test_link_cut_among_trips(build, work, acceptor, profile):
    """A call that prints, throws and catches, with the link cut at random bytes: each line comes once."""
    Faults("cuts", work, acceptor, profile).same([build("unwinding", library="unwinding"), "throw"], "unwinding", rounds=60)


@pytest.mark.parametrize("mode", ["throw", "deferred", *slow("thread", "cancel", "compute")])
def test_unwinding_under_faults(build, faults, mode):
    """As above, with the acceptor or the link lost at any moment."""
    reasons = {"unsupported:syscall:clock_nanosleep", "unsupported:signal:SIG32"}
    faults.same([build("unwinding", library="unwinding"), mode], "unwinding", reasons)


# -- recalls, and calls that chat --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_alone", [pytest.param(True, marks=pytest.mark.slow), False], ids=["alone", "another"])
def test_acceptor_drains_in_a_long_call(build, work, profile, acceptor, is_alone):
    """A call that lasts longer than its acceptor waits comes home with what it has done, and goes on with another one."""
    another = None if is_alone else work.serve()
    extra = ("--acceptor", another.address) if another else ()
    program = [build("interrupts", library="interrupts"), "flag", 1]
    session = work.start_split(program, profile("interrupts"), *extra, acceptor=acceptor)
    (pid,) = told(session, "waiting 0", "interrupts")
    poll_until(acceptor.sessions, "the call is away")
    time.sleep(0.3)  # some way into the call
    acceptor.running.kill(signal.SIGTERM)
    assert acceptor.running.wait() == 0
    if another:
        poll_until(another.sessions, "the call is away again")
    os.kill(pid, signal.SIGTERM)
    split = work.finish(session.running)
    split.report = session.report()
    assert split.stdout.count("ended") == 1 and split.stdout.endswith("EXIT-SUCCESS")
    assert trips(split, "interrupts_compute") == {"drain": 1} | ({} if is_alone else {"signal:SIGTERM": 1})
    assert split.reasons("interrupts_compute") == ({"refused:draining": 1} if is_alone else {})


def test_a_split_that_chats_is_told(build, work, profile):
    """Without a policy such calls leave each time, and `explain` says that they cannot gain."""
    split = work.same([build("output", library="output"), 30, 20], profile("output"))
    assert split.remote("output_lines") == 30
    story = " ".join(work.radium("explain", work.folder / "report1.json").stdout.split())
    assert "no acceptor is fast enough" in story and 'policy = "auto"' in story


# -- system calls ------------------------------------------------------------------------------------------------------

UNKNOWN = {"unsupported:syscall:18446744073709551615"}


@pytest.mark.parametrize(
    ("mode", "name"),
    [("robust", "make_robust"), ("robust", "recover"), ("inherit", "inherit"), ("handed", "unlock"), ("timed", "timed"),
     ("requeue", "requeue")],
)  # fmt: skip
def test_locks(build, work, profile, mode, name):
    """Robust and priority-inheriting mutexes, waits with an end, and moves between two futexes."""
    split = work.same([build("locks", library="locks"), mode], profile("locks"))
    assert split.remote(f"locks_{name}") == 3, split.stderr
    assert trips(split, f"locks_{name}")["syscall:futex"] > 0


@pytest.mark.parametrize("mode", ["robust", "inherit", *slow("handed", "timed", "requeue")])
def test_locks_under_faults(build, faults, mode):
    """As above, with the acceptor or the link lost at any moment."""
    rounds = {"timed": 12, "inherit": 60}.get(mode, 100)
    faults.same([build("locks", library="locks"), mode], "locks", {"unsupported:syscall:futex"}, rounds)


def test_system_calls_by_number(build, work, profile):
    """Clocks, randomness, memory, scheduling, signals, names and numbers that no kernel knows, in threads as well."""
    split = work.same([build("kernel", library="kernel")], profile("kernel"))
    reasons = {reason for entry in split.report["splits"] for reason in entry["local_reasons"]}
    assert reasons <= UNKNOWN, split.stderr
    for name in ("random", "cpu", "brk", "cpu_clock"):
        assert split.remote(f"kernel_{name}") == 4 and trips(split, f"kernel_{name}") == {}
    assert trips(split, "kernel_clocks") == {"syscall:getppid": 28}
    assert split.remote("kernel_closed") == 4 and trips(split, "kernel_closed") == {"syscall:getppid": 12}
    assert trips(split, "kernel_map") == {"syscall:mmap": 8}
    assert trips(split, "kernel_unknown").keys() >= {"syscall:1000", "syscall:500"}


@pytest.mark.parametrize("seconds", [100_000, -1000])
def test_an_acceptor_with_other_clocks(build, work, profile, seconds):
    """Where the acceptor was booted at another time, a call's clocks are the tracee's all the same."""
    other = ["unshare", "--time", "--monotonic", seconds, "--boottime", seconds]
    split = work.same([build("kernel", library="kernel")], profile("kernel"), acceptor=work.serve(prefix=other))
    assert split.remote("kernel_since") == 16 and split.remote("kernel_clocks") == 4


def test_system_calls_under_faults(build, faults):
    """As above, with the acceptor or the link lost at any moment."""
    faults.same([build("kernel", library="kernel")], "kernel", UNKNOWN, rounds=40)
