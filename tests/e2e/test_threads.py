"""Split calls among other threads of the tracee."""

import pytest


def test_others_go_on_after_a_call(build, work, profile):
    """Threads that are stopped during a call go on after it."""
    split = work.same([build("threads", library="work"), "counters", 10], profile("work"))
    assert split.remote("work_mix") == 10


def test_a_call_is_woken_by_another_thread(build, work, profile):
    """A thread that ran when the call left runs in the mirror too, and posts there what the call waits for."""
    split = work.same([build("threads", library="work"), "waits", 3], profile("work"))
    # A thread that is still being made when the call leaves is waited for at home.
    assert split.remote("work_wait") == 3 and split.split("work_wait")["went_home"].get("syscall:futex", 0) < 3


def test_threads_call_at_once(build, work, profile):
    """Several threads reach the split point together; each gets its own result, in a call of its own or as part of another."""
    split = work.same([build("threads", library="work"), "concurrent", 15], profile("work"))
    assert 0 < split.remote("work_mix") <= 60 and split.local("work_mix") == 0


def test_threads_come_and_go(build, work, profile):
    """Threads are created, call and end between the calls of others."""
    split = work.same([build("threads", library="work"), "churn", 8], profile("work"))
    assert split.remote("work_mix") > 0


def test_threads_that_block_all_signals(build, work, profile):
    """A breakpoint met with SIGTRAP blocked costs the program nothing, though the kernel then forgets the handler."""
    split = work.same([build("threads", library="work"), "masked", 5], profile("work"))
    assert split.remote("work_mix") > 0


def test_main_thread_ends_first(build, work, profile):
    """When the main thread ends before the others, radium leaves and they go on."""
    split = work.same([build("threads", library="work"), "headless", 30], profile("work"))
    assert "main thread" in split.stderr


@pytest.mark.parametrize("mode", ["counters", "concurrent", "churn", "masked", "headless"])
def test_attached_while_threads_run(build, work, profile, mode):
    """A program of several threads is attached while they run."""
    program = build("threads", library="work")
    whole = work.run_whole([program, mode, 30])
    target = work.start([program, mode, 30], hold=True)
    session = work.attach(target.pid, profile("work"))
    target.release()
    assert target.check_success() == whole.stdout
    session.ended()
