"""Programs that we start: held until all is ready for them, and awaited."""

import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Sequence

from radium.tracer.stops import Statuses, exit_code
from radium.tracer.wakeups import Wakeups

IDLE_S = 0.25
Limits = tuple[int, int]


def raise_limit() -> Limits:
    """As many descriptors as we may have, since each process that is followed takes some; the limits that we had."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def hold(command: Sequence[str], limits: Limits) -> tuple[int, Callable[[], None]]:
    """The program's process, about to execute it, and what lets it. limits: of descriptors, as it is to have them."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        _execute(command, ready, limits)
    os.close(ready)

    def release() -> None:
        os.write(go, b"!")
        os.close(go)

    return pid, release


def _execute(command: Sequence[str], ready: int, limits: Limits) -> None:
    """In the child; does not return."""
    try:
        if not os.read(ready, 1):
            os._exit(127)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"radium: {command[0]}: {error.strerror}; give a program that can be executed\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def await_end(pid: int, statuses: Statuses, wakeups: Wakeups) -> int:
    """The exit code of a child of ours that nobody traces (`Statuses.awaited`); it is told what we are told."""
    poll = select.poll()
    poll.register(wakeups.fd, select.POLLIN)
    while pid not in statuses.ends:
        for number in wakeups.take_received():
            os.kill(pid, number)
        poll.poll(IDLE_S * 1000)
        wakeups.read()
        while statuses.collect():
            pass
    return exit_code(statuses.ends[pid])
