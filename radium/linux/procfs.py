"""/proc/PID: text files read and split, nothing decided. A process that is gone raises TraceeGone (proc(5))."""

import os
from pathlib import Path

from radium.errors import TraceeGone


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise TraceeGone("process has ended", where=f"pid {pid}") from None


def status(pid: int, tid: int | None = None) -> dict[str, str]:
    name = "status" if tid is None else f"task/{tid}/status"
    lines = (line.partition(":") for line in read(pid, name).decode(errors="replace").splitlines())
    return {key: value.strip() for key, _, value in lines}


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat; index n-3 is field n of proc(5), from `state` (3) on."""
    return read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def cpu_time_ns(pid: int, tid: int) -> int:
    """What the thread has run (Documentation/scheduler/sched-stats.rst)."""
    return int(read(pid, f"task/{tid}/schedstat").split()[0])


def threads(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        raise TraceeGone("process has ended", where=f"pid {pid}") from None


def children(pid: int) -> list[int]:
    """Those of all its threads (CONFIG_PROC_CHILDREN; without it none are seen)."""
    out: list[int] = []
    for tid in threads(pid):
        try:
            out += [int(word) for word in read(pid, f"task/{tid}/children").split()]
        except TraceeGone:
            continue
    return out


def executable(pid: int) -> str:
    """Where /proc/PID/exe points; empty for a kernel thread."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return ""


def userfaultfds(pid: int) -> list[int]:
    """Descriptors of the process that are userfaultfds."""
    folder = f"/proc/{pid}/fd"
    return [int(name) for name in os.listdir(folder) if _link(f"{folder}/{name}") == "anon_inode:[userfaultfd]"]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def command_line(pid: int) -> list[str]:
    raw = read(pid, "cmdline")
    return [part.decode(errors="replace") for part in raw.split(b"\0")[:-1]]


def auxiliary_vector(pid: int) -> dict[int, int]:
    """type -> value, getauxval(3)."""
    raw = read(pid, "auxv")
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw) - 7, 8)]
    return dict(zip(words[0::2], words[1::2], strict=False))


class MapsFile:
    """/proc/PID/maps kept open: rereading costs one system call for each 4 KiB of text."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> bytes:
        pieces: list[bytes] = []
        offset = 0
        while True:
            try:
                piece = os.pread(self.fd, 1 << 16, offset)
            except ProcessLookupError:
                raise TraceeGone("process has ended", where=f"pid {self.pid}") from None
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            offset += len(piece)

    def close(self) -> None:
        os.close(self.fd)


def cpu_flags() -> list[str]:
    """Of the first CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line.partition(":")[2].split()
    return []
