"""The bare process that a mirror starts as, and system calls made in it from outside.

A static ELF of a few hundred bytes at a low address that the tracee does not use; its one segment holds a gadget
(`syscall; int3`), a loop that makes a whole table of system calls in one go, and room for that table:

    base + 0x78   gadget: syscall; int3
    base + 0x80   batch:  for each of rbp entries at rbx: make the call, store the result; stop at the first error; int3
    base + 0x1000 table of 64-byte entries (number, six arguments, result), or data for a single call

Sources: GOING_HOME.md (why SEIZE, why the stop behind execve); ptrace(2).
"""

import os
import signal
import struct
from collections.abc import Sequence
from contextlib import suppress

from radium.core import wire
from radium.core.mapping import Mapping, parse_maps
from radium.core.regs import NO_SYSCALL, Registers
from radium.errors import JobFailed, TraceeGone
from radium.linux import namespaces, pidfd, procfs, ptrace, seccomp, vm
from radium.linux.libc import NUMBERS
from radium.replay import sandbox

NAME = b"radium-mirror"
SIZE = 0x20000
GADGET = 0x78
BATCH = 0x80
TABLE = 0x1000
ENTRY = struct.Struct("<7Qq")
MAX_BATCH = (SIZE - TABLE) // ENTRY.size
# Where a vessel may lie, and the room that it needs for itself and for moving the vdso about.
LOWEST, HIGHEST, ROOM = 0x10000, 0x40000000, 0x100000

_BATCH_CODE = bytes.fromhex(
    "4885ed"    # loop: test rbp, rbp
    "7430"      #       jz done
    "488b03"    #       mov rax, [rbx]
    "488b7b08"  #       mov rdi, [rbx+8]
    "488b7310"  #       mov rsi, [rbx+16]
    "488b5318"  #       mov rdx, [rbx+24]
    "4c8b5320"  #       mov r10, [rbx+32]
    "4c8b4328"  #       mov r8, [rbx+40]
    "4c8b4b30"  #       mov r9, [rbx+48]
    "0f05"      #       syscall
    "48894338"  #       mov [rbx+56], rax
    "4883c340"  #       add rbx, 64
    "48ffcd"    #       dec rbp
    "483d00f0ffff"  #   cmp rax, -4096
    "76cb"      #       jbe loop
    "cc"        # done: int3
)  # fmt: skip
_BATCH_SYSCALL_END = BATCH + _BATCH_CODE.index(b"\x0f\x05") + 2

_OPTIONS = ptrace.O_EXITKILL | ptrace.O_SYSGOOD | ptrace.O_EXEC | ptrace.O_SECCOMP | ptrace.O_CLONE

SystemCall = tuple[str, tuple[int, ...]]


class MirrorDied(JobFailed):
    """The mirror's process ended: killed, or out of memory."""


def _elf(base: int) -> bytes:
    """An ELF64 executable with one RWX segment (System V gABI, chapters 4 and 5)."""
    code = b"\x0f\x05\xcc".ljust(BATCH - GADGET, b"\xcc") + _BATCH_CODE
    header = struct.pack(
        "<4sBBBBB7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, base + GADGET, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, base, base, GADGET + len(code), SIZE, 0x1000)
    return header + segment + code


def place(used: Sequence[tuple[int, int]]) -> int:
    """A low address with ROOM bytes that the tracee (its `used` runs) does not use. Raises JobFailed."""
    for base in range(LOWEST * 2, HIGHEST, ROOM):
        if all(end <= base or base + ROOM <= start for start, end in used):
            return base
    raise JobFailed("the tracee uses all low addresses; there is no place for a mirror's vessel")


class Vessel:
    """A stopped process, seized by us; killed when we go (PTRACE_O_EXITKILL).

    Its first thread makes system calls for us and runs nothing of the tracee's; `start_thread` makes those that do.
    """

    def __init__(self, base: int, limits: sandbox.Limits, clocks: wire.Clocks = wire.SAME_CLOCKS) -> None:
        self.base = base
        self.pid = _start(base, limits, clocks)
        self._is_killed = False
        self.memory = vm.ForcedMemory(self.pid)
        self.special = [m for m in self.mappings() if m.path.startswith("[v")]
        self.registers = ptrace.registers(self.pid)
        self._take_name()

    def _take_name(self) -> None:
        """What `ps` and `top` show of a mirror: a program that is executed by descriptor has none."""
        self.memory.write(self.scratch, NAME + b"\0")
        self.call("prctl", namespaces.PR_SET_NAME, self.scratch)

    @property
    def own_addresses(self) -> tuple[int, int]:
        return self.base + GADGET + 2, self.base + _BATCH_SYSCALL_END

    @property
    def scratch(self) -> int:
        return self.base + TABLE

    def mappings(self) -> list[Mapping]:
        return parse_maps(procfs.read(self.pid, "maps"))

    def call(self, name: str, *arguments: int) -> int:
        """One system call in the vessel, whose thread's registers are lost by it. Raises OSError with its errno."""
        regs = self.registers.copy()
        regs.rip, regs.rax, regs.orig_rax = self.base + GADGET, NUMBERS[name], NO_SYSCALL
        values = [*arguments, 0, 0, 0, 0, 0, 0][:6]
        regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9 = values
        self._run_to_trap(regs, self.base + GADGET + 3)
        result = ptrace.registers(self.pid).rax
        return _checked(name, result - (1 << 64) if result >> 63 else result)

    def batch(self, calls: Sequence[SystemCall]) -> list[int]:
        """The calls one after the other with few stops. Raises OSError at the first that fails; those before it were made."""
        results: list[int] = []
        for first in range(0, len(calls), MAX_BATCH):
            results += self._batch(calls[first : first + MAX_BATCH])
        return results

    def _batch(self, calls: Sequence[SystemCall]) -> list[int]:
        table = b"".join(
            ENTRY.pack(NUMBERS[name], *(a & (1 << 64) - 1 for a in (*args, 0, 0, 0, 0, 0, 0)[:6]), 0) for name, args in calls
        )
        self.memory.write(self.scratch, table)
        regs = self.registers.copy()
        regs.rip, regs.rbx, regs.rbp, regs.orig_rax = self.base + BATCH, self.scratch, len(calls), NO_SYSCALL
        self._run_to_trap(regs, self.base + BATCH + len(_BATCH_CODE))
        done = ENTRY.iter_unpack(self.memory.read(self.scratch, len(table)))
        return [_checked(name, entry[7], args) for (name, args), entry in zip(calls, done, strict=True)]

    def _run_to_trap(self, regs: Registers, rip: int) -> None:
        ptrace.set_registers(self.pid, regs)
        ptrace.resume(self.pid)
        status = wait(self.pid)
        if os.WSTOPSIG(status) != signal.SIGTRAP or status >> 16 or ptrace.registers(self.pid).rip != rip:
            raise MirrorDied(f"the vessel stopped in an unexpected way (status {status:#x})", where=f"pid {self.pid}")

    def start_thread(self) -> tuple[int, int]:
        """One more thread, stopped before its first instruction: its id, and that which it has in its own pid namespace.

        Raises OSError (no more threads are allowed).
        """
        regs = self.registers.copy()
        regs.rip, regs.rax, regs.orig_rax = self.base + GADGET, NUMBERS["clone"], NO_SYSCALL
        # Without a stack of its own: it is given registers before it runs.
        regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8 = sandbox.THREAD_FLAGS, 0, 0, 0, 0
        ptrace.set_registers(self.pid, regs)
        ptrace.resume(self.pid)
        status, tid = wait(self.pid), 0
        if status >> 16 == ptrace.EVENT_CLONE:
            tid = ptrace.event_message(self.pid)
            wait(tid)
            ptrace.resume(self.pid)
            status = wait(self.pid)
        if status >> 8 != signal.SIGTRAP:
            raise MirrorDied(f"the vessel stopped in an unexpected way (status {status:#x})", where=f"pid {self.pid}")
        result = ptrace.registers(self.pid).rax
        return tid, _checked("clone", result - (1 << 64) if result >> 63 else result)

    def take_descriptor(self, fd: int) -> int:
        """Moves a descriptor of the vessel's to us."""
        ours = pidfd.take_descriptor(self.pid, fd)
        self.call("close", fd)
        return ours

    def seal(self, serves_kernel: bool) -> None:
        """From here on nothing in this process can reach outside of its memory, nor can we make it.

        serves_kernel: see sandbox.filter_for.
        """
        header, empty = sandbox.NO_CAPABILITIES
        self.memory.write(self.scratch, header + empty)
        program = sandbox.filter_for(self.own_addresses, serves_kernel)
        self.memory.write(self.scratch + 64, struct.pack("<HxxxxxxQ", len(program) // 8, self.scratch + 80) + program)
        self.call("capset", self.scratch, self.scratch + len(header))
        self.call("prctl", namespaces.PR_SET_NO_NEW_PRIVS, 1)
        self.call("seccomp", seccomp.SET_MODE_FILTER, 0, self.scratch + 64)

    def kill(self) -> None:
        """Ends the process and reaps it, once: its pid may be another's afterwards."""
        if self._is_killed:
            return
        self._is_killed = True
        try:
            os.kill(self.pid, signal.SIGKILL)
            # The end of the process is told when those of all its threads have been (ptrace(2), "Death under ptrace"), and
            # what ran in it may have made some. From here on it makes no more (copy_process in kernel/fork.c).
            others = [tid for tid in procfs.threads(self.pid) if tid != self.pid]
            for tid in (*others, self.pid):
                _await_end(tid)
        except (ProcessLookupError, TraceeGone):
            return
        finally:
            self.memory.close()


# __WALL: wait(2)
WALL = 0x40000000


def _await_end(tid: int) -> None:
    with suppress(ChildProcessError):
        while not _ended(os.waitpid(tid, WALL)[1]):
            pass


def _ended(status: int) -> bool:
    return os.WIFEXITED(status) or os.WIFSIGNALED(status)


def wait(pid: int, block: bool = True) -> int:
    """The wait status of a stop; 0 when not blocking and there is none. Raises MirrorDied."""
    try:
        found, status = os.waitpid(pid, WALL | (0 if block else os.WNOHANG))
    except ChildProcessError:
        raise MirrorDied("the mirror's process is gone", where=f"pid {pid}") from None
    if found == 0:
        return 0
    if _ended(status):
        how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        raise MirrorDied(f"the mirror's process ended ({how})", where=f"pid {pid}")
    return status


def _checked(name: str, result: int, arguments: tuple[int, ...] = ()) -> int:
    if -4096 < result < 0:
        where = ", ".join(f"{a:#x}" for a in arguments)
        raise OSError(-result, f"{name}({where}) in the vessel: {os.strerror(-result)}")
    return result


def _start(base: int, limits: sandbox.Limits, clocks: wire.Clocks) -> int:
    image = os.memfd_create("vessel", os.MFD_CLOEXEC)
    os.write(image, _elf(base))
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        _become(image, ready, limits, clocks)
    os.close(ready)
    os.close(image)
    try:
        ptrace.seize(pid, _OPTIONS)
        os.write(go, b"!")
    finally:
        os.close(go)
    status = wait(pid)
    if status >> 16 != ptrace.EVENT_EXEC:
        raise MirrorDied(f"the vessel could not be executed (status {status:#x})")
    # rax is still to be overwritten by execve's own result: on to its exit stop.
    ptrace.resume_to_syscall(pid)
    wait(pid)
    return pid


def _become(image: int, ready: int, limits: sandbox.Limits, clocks: wire.Clocks) -> None:
    """In the child; does not return. Without a word, because the session has been killed, there is nothing to become."""
    try:
        if not os.read(ready, 1):
            return
        sandbox.enter(limits, clocks)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(image, [NAME], {})
    finally:
        os._exit(70)
