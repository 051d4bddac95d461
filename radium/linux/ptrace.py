"""ptrace(2): python-ptrace's binding, and beside it what that lacks (SEIZE, INTERRUPT, register sets by iovec).

Requests must come from the thread that seized the tracee. ESRCH becomes TraceeGone here and nowhere else;
any other refusal is an OSError with the request's name.
Sources: ptrace(2); <linux/ptrace.h>; <linux/elf.h> for NT_X86_XSTATE.
"""

import ctypes
import errno
import os
import struct

from ptrace import PtraceError
from ptrace.binding import func as binding
from ptrace.binding.linux_struct import iovec_struct

from radium.core.regs import FORMAT, Registers
from radium.errors import TraceeGone

SEIZE = 0x4206
INTERRUPT = 0x4207
LISTEN = 0x4208
PEEKSIGINFO = 0x4209
GETSIGMASK = 0x420A
SETSIGMASK = 0x420B
GET_SYSCALL_INFO = 0x420E
GET_RSEQ_CONFIGURATION = 0x420F

O_SYSGOOD = binding.PTRACE_O_TRACESYSGOOD
O_FORK = binding.PTRACE_O_TRACEFORK
O_VFORK = binding.PTRACE_O_TRACEVFORK
O_CLONE = binding.PTRACE_O_TRACECLONE
O_EXEC = binding.PTRACE_O_TRACEEXEC
O_VFORK_DONE = binding.PTRACE_O_TRACEVFORKDONE
O_SECCOMP = 1 << 7
O_EXITKILL = 1 << 20
O_SUSPEND_SECCOMP = 1 << 21

EVENT_FORK = binding.PTRACE_EVENT_FORK
EVENT_VFORK = binding.PTRACE_EVENT_VFORK
EVENT_CLONE = binding.PTRACE_EVENT_CLONE
EVENT_EXEC = binding.PTRACE_EVENT_EXEC
EVENT_VFORK_DONE = binding.PTRACE_EVENT_VFORK_DONE
EVENT_SECCOMP = 7
EVENT_STOP = 128

NT_X86_XSTATE = 0x202
# Larger than any XSAVE area of today's CPUs (AMX included: 11 KiB).
XSTATE_ROOM = 1 << 15
# offsetof(struct user, u_debugreg), <sys/user.h>
DEBUG_REGISTERS = 848
# si_code of a trap (include/uapi/asm-generic/siginfo.h)
SI_KERNEL = 0x80
TRAP_HWBKPT = 4
SIGINFO_NBYTES = 128


def request(command: int, tid: int, address: int = 0, data: int = 0) -> int:
    try:
        return binding.ptrace(command, tid, address, data)
    except PtraceError as error:
        raise _answer(error.errno, command, tid) from None


def _answer(number: int | None, command: int, tid: int) -> Exception:
    if number == errno.ESRCH:
        return TraceeGone("thread has ended or is not stopped", where=f"tid {tid}")
    return OSError(number or 0, f"ptrace request {command:#x}: {os.strerror(number or 0)}", f"tid {tid}")


def seize(tid: int, options: int) -> None:
    request(SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    request(INTERRUPT, tid)


def listen(tid: int) -> None:
    request(LISTEN, tid)


def resume(tid: int, signal: int = 0) -> None:
    request(binding.PTRACE_CONT, tid, 0, signal)


def resume_to_syscall(tid: int, signal: int = 0) -> None:
    request(binding.PTRACE_SYSCALL, tid, 0, signal)


def single_step(tid: int) -> None:
    request(binding.PTRACE_SINGLESTEP, tid)


def detach(tid: int, signal: int = 0) -> None:
    request(binding.PTRACE_DETACH, tid, 0, signal)


def set_options(tid: int, options: int) -> None:
    request(binding.PTRACE_SETOPTIONS, tid, 0, options)


def event_message(tid: int) -> int:
    value = ctypes.c_ulong()
    request(binding.PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


_registers = ctypes.create_string_buffer(FORMAT.size)
_registers_at = ctypes.addressof(_registers)


def registers(tid: int) -> Registers:
    return Registers.unpack(raw_registers(tid))


def raw_registers(tid: int) -> bytes:
    """As `Registers.unpack` takes them."""
    request(binding.PTRACE_GETREGS, tid, 0, _registers_at)
    return _registers.raw


def set_registers(tid: int, regs: Registers) -> None:
    set_raw_registers(tid, regs.pack())


def set_raw_registers(tid: int, raw: bytes) -> None:
    _registers.raw = raw
    request(binding.PTRACE_SETREGS, tid, 0, _registers_at)


_xstate = ctypes.create_string_buffer(XSTATE_ROOM)
_xstate_iovec = iovec_struct()


def xstate(tid: int) -> bytes:
    """The XSAVE area: x87, SSE, AVX and what else the CPU has; MXCSR and the control words included."""
    _xstate_iovec.buf, _xstate_iovec.len = ctypes.addressof(_xstate), XSTATE_ROOM
    request(binding.PTRACE_GETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(_xstate_iovec))
    return ctypes.string_at(_xstate, _xstate_iovec.len)


def set_xstate(tid: int, state: bytes) -> None:
    """Raises OSError for a state that is not this kernel's, its size included."""
    if len(state) > XSTATE_ROOM:
        raise OSError(errno.EINVAL, f"an extended state of {len(state)} bytes", f"tid {tid}")
    ctypes.memmove(_xstate, state, len(state))
    _xstate_iovec.buf, _xstate_iovec.len = ctypes.addressof(_xstate), len(state)
    request(binding.PTRACE_SETREGSET, tid, NT_X86_XSTATE, ctypes.addressof(_xstate_iovec))


# op of struct ptrace_syscall_info
SYSCALL_EXIT = 2
_syscall_info = ctypes.create_string_buffer(8)


def syscall_info(tid: int) -> tuple[int, int]:
    """(op, architecture) in a system call stop or a seccomp stop: SYSCALL_EXIT; AUDIT_ARCH_... of <linux/audit.h>."""
    request(GET_SYSCALL_INFO, tid, len(_syscall_info), ctypes.addressof(_syscall_info))
    return _syscall_info.raw[0], int.from_bytes(_syscall_info.raw[4:8], "little")


_siginfo = ctypes.create_string_buffer(128)


def signal_info(tid: int) -> tuple[int, int, int]:
    """(si_signo, si_code, si_addr) of the signal that stopped the thread."""
    request(binding.PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(_siginfo))
    raw = _siginfo.raw
    return (
        int.from_bytes(raw[0:4], "little", signed=True),
        int.from_bytes(raw[8:12], "little", signed=True),
        int.from_bytes(raw[16:24], "little"),
    )


def has_own_signal(tid: int) -> bool:
    """Whether a signal waits for this thread alone, blocked ones included."""
    # struct ptrace_peeksiginfo_args: offset, flags, how many (ptrace(2), PTRACE_PEEKSIGINFO)
    wanted = ctypes.create_string_buffer(struct.pack("<QIi", 0, 0, 1), 16)
    found = ctypes.create_string_buffer(SIGINFO_NBYTES)
    return request(PEEKSIGINFO, tid, ctypes.addressof(wanted), ctypes.addressof(found)) > 0


def signal_mask(tid: int) -> int:
    """Blocked signals, bit n-1 for signal n."""
    mask = ctypes.c_uint64()
    request(GETSIGMASK, tid, 8, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    value = ctypes.c_uint64(mask)
    request(SETSIGMASK, tid, 8, ctypes.addressof(value))


def debug_register(tid: int, number: int) -> int:
    return binding.ptrace(binding.PTRACE_PEEKUSER, tid, DEBUG_REGISTERS + 8 * number, 0, check_errno=True)


def set_debug_register(tid: int, number: int, value: int) -> None:
    request(binding.PTRACE_POKEUSER, tid, DEBUG_REGISTERS + 8 * number, value)


def rseq_area(tid: int) -> tuple[int, int]:
    """(address, bytes) of the thread's restartable sequences area, which the kernel writes; (0, 0) when there is none."""
    buffer = ctypes.create_string_buffer(24)
    try:
        request(GET_RSEQ_CONFIGURATION, tid, 24, ctypes.addressof(buffer))
    except OSError:
        return 0, 0
    raw = buffer.raw
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:12], "little")
