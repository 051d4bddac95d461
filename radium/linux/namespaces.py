"""unshare(2), prctl(2), close_range(2), time_namespaces(7) as the sandbox needs them: one function per call."""

from radium.linux.libc import syscall

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
NEWTIME = 0x80
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_MM, PR_SET_NO_NEW_PRIVS = 1, 15, 35, 38
PR_SET_MM_MAP = 14
# <linux/close_range.h>; Linux 5.11
CLOSE_RANGE_CLOEXEC = 4


def unshare(flags: int) -> None:
    syscall("unshare", flags)


def unshare_clocks(monotonic_ns: int, boottime_ns: int) -> None:
    """From its next exec on (Linux 6.1) this process sees these clocks so much later. Raises OSError."""
    with open("/proc/self/timens_offsets") as file:
        # Of this process, if it is in such a namespace itself: the new one's count from the same zero.
        offsets = {name: int(seconds) * 10**9 + int(ns) for name, seconds, ns in map(str.split, file)}
    syscall("unshare", NEWTIME)
    with open("/proc/self/timens_offsets", "w") as file:
        for name, more_ns in (("monotonic", monotonic_ns), ("boottime", boottime_ns)):
            seconds, ns = divmod(offsets[name] + more_ns, 10**9)
            file.write(f"{name} {seconds} {ns}\n")


def die_with_parent(signal: int) -> None:
    syscall("prctl", PR_SET_PDEATHSIG, signal)


def close_descriptors_at_exec() -> None:
    """All of them, standard input and output too."""
    syscall("close_range", 0, (1 << 32) - 1, CLOSE_RANGE_CLOEXEC)


def set_oom_score(adjustment: int) -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(adjustment))
