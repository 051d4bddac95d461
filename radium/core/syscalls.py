"""Which system calls run in a mirror, and why. What is in no table goes home: the tracee's thread makes it there.

HARMLESS run there without a stop: they touch nothing but the mirror's own memory and the clock.
ANSWERED have an answer that is known from home, given without running anything.
PLACEMENT is advice, answered without effect.
EMULATED are done by the runner, in which the mirror's threads meet: none is made, in the mirror or at home.
Memory calls (core.mapping.JOURNALLED) run there and are journalled; those that cannot be repeated at home at the same
address with the same meaning go home: mappings of files, shared ones, locked ones.
AT_HOME are those of which one might think otherwise.
"""

from radium.core.mapping import JOURNALLED

HARMLESS: dict[str, str] = {
    "clock_gettime": "of the CLOCKS below, which have no owner; the vdso answers them mostly",
    "clock_getres": "a property of the clock",
    "gettimeofday": "as clock_gettime",
    "time": "as clock_gettime",
    "getrandom": "randomness has no owner",
    "getcpu": "a hint, stale when it is read",
}

# Those of <linux/time.h> that every process shares. The others tell the CPU time of the tracee's process or thread: home is
# asked for it.
CLOCKS = {
    0: "CLOCK_REALTIME",
    1: "CLOCK_MONOTONIC",
    4: "CLOCK_MONOTONIC_RAW",
    5: "CLOCK_REALTIME_COARSE",
    6: "CLOCK_MONOTONIC_COARSE",
    7: "CLOCK_BOOTTIME",
    8: "CLOCK_REALTIME_ALARM",
    9: "CLOCK_BOOTTIME_ALARM",
    11: "CLOCK_TAI",
}

ANSWERED: dict[str, str] = {
    "getpid": "the tracee's, not the mirror's",
    "gettid": "the tracee's thread, not the mirror's",
    "getuid": "the tracee's user",
    "geteuid": "the tracee's user",
    "getgid": "the tracee's group",
    "getegid": "the tracee's group",
}

# Advice on where memory should lie; the acceptor has its own memory, and at home the call changes no contents (numa(7)).
PLACEMENT: dict[str, str] = {
    "mbind": "a NUMA policy for a range",
    "set_mempolicy": "a NUMA policy for the thread",
}

EMULATED: dict[str, str] = {
    "futex": "WAIT and WAKE, with a bitset or without, on memory of this process alone (futexes.py); not where others go on at "
    "home (`threads = \"run\"`), nor with priority inheritance, of which the kernel keeps state, nor moves: these go home",
    "sched_yield": "counted: a mirror in which everybody waits or yields goes home",
    "rt_sigprocmask": "noted, and done at home when its thread comes there; one that lets some in goes home, where they wait",
    "clock_gettime": "of the other clocks: home is asked",
}

AT_HOME: dict[str, str] = {
    "futex_waitv": "one wait for several futexes: a form that nothing here needed",
    "nanosleep": "the tracee's other threads go on meanwhile, and signals are met",
    "clock_nanosleep": "as nanosleep",
    "rseq": "the kernel writes the area of the tracee's thread; the mirror's has none registered",
    "set_robust_list": "the kernel walks it when the tracee's thread ends",
    "set_tid_address": "as set_robust_list",
    "rt_sigaction": "signals are delivered at home",
    "rt_sigreturn": "as rt_sigaction",
    "sigaltstack": "as rt_sigaction",
    "prctl": "properties of the tracee's thread or process",
    "arch_prctl": "as prctl",
    "sched_setaffinity": "the tracee's thread is meant, on the initiator's CPUs",
    "sched_getaffinity": "as sched_setaffinity",
    "clone": "new threads and processes are the tracee's",
    "clone3": "as clone",
    "fork": "as clone",
    "vfork": "as clone",
    "execve": "the process is the tracee's",
    "exit": "the thread is the tracee's",
    "exit_group": "the process is the tracee's",
}


def goes_home(name: str) -> bool:
    """Whether a mirror leaves a system call of this name to home, as a rule: some forms of the others go home as well."""
    return not any(name in table for table in (HARMLESS, ANSWERED, PLACEMENT, EMULATED, JOURNALLED))


# Between two looks: a thread that yields so often, and does nothing else, waits for another one.
YIELDS_UNTIL_STUCK = 64
