"""Whether a process can be a tracee; each refusal is one line that says why and what to do."""

import os
import stat
from pathlib import Path

from radium.errors import NotPossible, TraceeGone, UsageError
from radium.linux import procfs

# PF_KTHREAD, <linux/sched.h>; the flags are field 9 of /proc/PID/stat.
_KERNEL_THREAD = 0x00200000
_AT_SECURE = 23  # getauxval(3)
_ELF_CLASS_64, _ELF_MACHINE_X86_64 = 2, 62


def admit(pid: int) -> None:
    """Raises UsageError for a pid that names no process, NotPossible for one that cannot be traced."""
    where = f"pid {pid}"
    if pid <= 0 or not os.path.isdir(f"/proc/{pid}"):
        raise UsageError("there is no such process", where=where, advice="see `ps -e` for the pids")
    try:
        status = procfs.status(pid)
        _check_kind(pid, status, where)
        _check_permission(pid, status, where)
        _check_tracer(pid, status, where)
        check_program(pid)
    except TraceeGone:
        raise UsageError("ended just now", where=where) from None


def _check_kind(pid: int, status: dict[str, str], where: str) -> None:
    if int(status["Tgid"]) != pid:
        raise UsageError(f"is a thread of process {status['Tgid']}", where=where, advice=f"give --pid {status['Tgid']}")
    if status["State"].startswith("Z"):
        raise NotPossible("has ended already (a zombie)", where=where)
    if int(procfs.stat_fields(pid)[9 - 3]) & _KERNEL_THREAD:
        raise NotPossible("is a kernel thread", where=where, advice="give the pid of a program")
    if pid in (os.getpid(), os.getppid()) and _is_radium(pid):
        raise NotPossible("is radium itself", where=where, advice="give the pid of the program to split")


def _is_radium(pid: int) -> bool:
    return pid == os.getpid() or any(os.path.basename(part) == "radium" for part in procfs.command_line(pid)[:3])


def _check_permission(pid: int, status: dict[str, str], where: str) -> None:
    try:
        os.stat(f"/proc/{pid}/exe")
        os.close(os.open(f"/proc/{pid}/maps", os.O_RDONLY))
    except PermissionError:
        owner = status["Uid"].split()[0]
        raise NotPossible(
            f"belongs to user {owner} and we are {os.geteuid()}", where=where, advice="run radium as root: sudo radium ..."
        ) from None
    except FileNotFoundError:
        # An executable that was deleted still has its link.
        return


def _check_tracer(pid: int, status: dict[str, str], where: str) -> None:
    tracer = int(status["TracerPid"])
    if tracer:
        name = procfs.status(tracer).get("Name", "?")
        raise NotPossible(
            f"is traced already, by {name} (pid {tracer})", where=where, advice=f"end that first: kill {tracer}"
        )


def why_let_go(pid: int) -> str:
    """Why a program that has just been executed is not to be touched; "" if it may be. Raises TraceeGone.

    execve(2): whose tracer has no rights over it runs a set-user-ID program without its owner's rights.
    """
    try:
        status = os.stat(f"/proc/{pid}/exe")
        is_owner = int(procfs.status(pid)["Uid"].split()[1]) == status.st_uid
    except OSError:
        return "its file may not be read"
    if status.st_mode & stat.S_ISUID and not is_owner:
        return "it is setuid, and has not got its owner's rights because radium is not root: use sudo radium, or --follow no"
    if procfs.auxiliary_vector(pid).get(_AT_SECURE):
        return "it runs with rights that its caller has not (setuid, setgid or capabilities)"
    return ""


def check_program(pid: int) -> None:
    where = f"pid {pid}"
    try:
        with Path(f"/proc/{pid}/exe").open("rb") as file:
            head = file.read(20)
    except OSError:
        return
    machine = int.from_bytes(head[18:20], "little")
    if head[:4] == b"\x7fELF" and (head[4] != _ELF_CLASS_64 or machine != _ELF_MACHINE_X86_64):
        what = "a 32-bit program" if head[4] != _ELF_CLASS_64 else f"a program for ELF machine {machine}"
        raise NotPossible(f"is {what}", where=where, advice="radium splits x86-64 programs")
