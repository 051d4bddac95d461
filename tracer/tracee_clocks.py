"""Clocks as a thread of the tracee's is told them, which stands still (clock_gettime(2))."""

import time

from radium.errors import TraceeGone
from radium.linux import procfs

PROCESS_CPUTIME, THREAD_CPUTIME = 2, 3
# CPUCLOCK_SCHED, the kind of a process's clock (<linux/posix-timers_types.h>).
_SCHED = 2


def read(pid: int, tid: int, clock: int) -> tuple[int, int]:
    """(ns, errno), one of which is 0."""
    try:
        if clock == THREAD_CPUTIME:
            # The clock of another process's thread is not told (pid_for_clock in kernel/time/posix-cpu-timers.c).
            return procfs.cpu_time_ns(pid, tid), 0
        return time.clock_gettime_ns(~pid << 3 | _SCHED if clock == PROCESS_CPUTIME else clock), 0
    except TraceeGone:
        return 0, 0
    except OSError as error:
        return 0, error.errno or 0
