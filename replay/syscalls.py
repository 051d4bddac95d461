"""Which system calls run in a mirror, and why. What is in no table goes home.

HARMLESS run there without a stop: they touch nothing but the mirror's own memory and the clock.
ANSWERED have an answer that is known from home, given without running anything.
PLACEMENT is advice, answered without effect.
Memory calls (core.mapping.JOURNALLED) run there and are journalled.
"""

HARMLESS: dict[str, str] = {
    "futex": "wakes and waits only among the mirror's own threads",
    "clock_gettime": "a clock has no owner; the vdso answers it mostly",
    "clock_getres": "a property of the clock",
    "gettimeofday": "as clock_gettime",
    "time": "as clock_gettime",
    "getrandom": "randomness has no owner",
    "nanosleep": "waits, and changes nothing",
    "clock_nanosleep": "as nanosleep",
    "getcpu": "a hint, stale when it is read",
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

# Alone in its mirror, a thread that yields this often in one call waits for a thread that is not there.
YIELDS_UNTIL_STUCK = 64
