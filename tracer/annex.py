"""The annex: a small mapping of radium's in the tracee that keeps it alive when radium is not there.

For every breakpoint it holds the relocated copy of the instruction under it, and it holds a SIGTRAP handler that
sends a thread from entry+1, where int3 leaves it, to that copy. While radium traces, the handler is not reached;
after a SIGKILL of radium the tracee runs on through it, and so do children that nobody traces. This module only
builds the bytes; mapping them readable and executable, writing them and rt_sigaction are done by others.

    base     data      what the handler reads: old handler, size of the annex, signal mask, SIG_DFL action, stepping
    +0x40    code      handler, restorer, gadget, park
    +0x200   table     (entry+1, address of its copy), 16 bytes each, ended by a zero key
             copies    32 bytes each, never freed: a thread may still be in one

Invariants:
  The handler writes only to its signal frame and keeps nothing, so that any number of threads may be in it.
  It is right at every moment of an `add`: copy first, then the table row; a row that is half written has a key
  that no thread can have trapped at, since its breakpoint is armed only after all pieces have been written.

Beware: an int3 hit while SIGTRAP is blocked makes the kernel set the disposition back to SIG_DFL for the whole
process and unblock the signal (force_sig_info_to_task, kernel/signal.c), traced or not. Whoever sees such a stop
has to put both right again; without a tracer that thread dies.

Sources: System V psABI 3.2 (registers at a handler's entry), arch/x86/include/uapi/asm/sigcontext.h and ucontext.h
(saved rip at 168), arch/x86/include/asm/signal.h (struct sigaction), rt_sigaction(2), rt_tgsigqueueinfo(2).
"""

import copy
import struct
from typing import NamedTuple

from radium.core.addr import PAGE_SIZE, Addr, AddrRange
from radium.errors import NotPossible
from radium.tracer.entry import MAX_COPY_NBYTES, FirstInstruction, RelocatedCopy, build_copy
from radium.tracer.listing import assemble

SIG_DFL, SIG_IGN = 0, 1
SIGTRAP = 5
SA_SIGINFO = 0x00000004
SA_RESTORER = 0x04000000
SA_ONSTACK = 0x08000000
SA_RESTART = 0x10000000
SA_NODEFER = 0x40000000

_KERNEL_SIGACTION = struct.Struct("<4Q")  # handler, flags, restorer, mask
_QUAD = struct.Struct("<Q")
_ROW = struct.Struct("<2Q")  # entry+1, copy
_DATA = struct.Struct("<QQQ32x")  # old handler, size of the annex, mask of SIGTRAP, SIG_DFL as a kernel sigaction
# Not 0 while radium makes threads step out of here: if it is killed then, the last step's signal says nothing.
STEPPING_AT = 56
_DATA_OFFSETS = {
    "base": 0, "old_handler": 0, "nbytes": 8, "trap_mask": 16, "default_action": 24, "stepping": STEPPING_AT
}  # fmt: skip
_CODE_OFFSET = 0x40
_TABLE_OFFSET = 0x200
# The park loop, and the place of `syscall` in it.
PARK_NBYTES, PARK_SYSCALL = 12, 5


# See listing.py. On entry rdi = signo, rsi = siginfo,
# rdx = ucontext, and every register is the handler's to use, since sigreturn restores them all.
_LISTING = """
handler:
    48 8b 82 a8 00 00 00    ; mov rax, [rdx+168]        the interrupted rip
    81 7e 08 80 00 00 00    ; cmp dword [rsi+8], SI_KERNEL
    0f 85 @not_an_entry     ; jne not_an_entry          si_code: int3 has this one, kill() never
    4c 8d 05 @table         ; lea r8, [table]
    4c 8d 48 01             ; lea r9, [rax+1]
next_row:
    49 8b 08                ; mov rcx, [r8]
    48 85 c9                ; test rcx, rcx
    0f 84 @not_an_entry     ; jz not_an_entry
    48 39 c1                ; cmp rcx, rax
    0f 84 @found            ; je found
    4c 39 c9                ; cmp rcx, r9               radium had put the thread back to its breakpoint when it died
    0f 84 @leave            ; je leave
    49 83 c0 10             ; add r8, 16
    e9 @next_row            ; jmp next_row
found:
    49 8b 48 08             ; mov rcx, [r8+8]
    48 89 8a a8 00 00 00    ; mov [rdx+168], rcx        go on in the copy
    c3                      ; ret                       to the restorer

not_an_entry:               ; In the annex itself (parked, or in a copy): sent by radium, and says nothing.
    48 89 c1                ; mov rcx, rax
    4c 8d 05 @base          ; lea r8, [base]
    4c 29 c1                ; sub rcx, r8
    48 3b 0d @nbytes        ; cmp rcx, [nbytes]
    0f 82 @leave            ; jb leave

    8b 4e 08                ; mov ecx, [rsi+8]          TRAP_BRKPT, TRAP_TRACE: a step
    ff c9                   ; dec ecx
    83 f9 01                ; cmp ecx, 1
    0f 87 @not_a_step       ; ja not_a_step
    48 8b 0d @stepping      ; mov rcx, [stepping]
    48 85 c9                ; test rcx, rcx
    0f 85 @leave            ; jne leave
not_a_step:
    81 7e 08 80 00 00 00    ; cmp dword [rsi+8], SI_KERNEL
    0f 85 @chain            ; jne chain
    80 78 ff cc             ; cmp byte [rax-1], 0xcc    no int3 there any more: it was withdrawn
    0f 85 @leave            ; jne leave
chain:
    48 8b 0d @old_handler   ; mov rcx, [old_handler]    not radium's: what would have happened without it
    48 83 f9 01             ; cmp rcx, SIG_IGN
    0f 84 @leave            ; je leave
    0f 82 @default          ; jb default                SIG_DFL
    31 c0                   ; xor eax, eax              as the kernel leaves it
    ff e1                   ; jmp rcx                   rdi, rsi, rdx and the stack are untouched

default:                    ; The same signal again, held back until sigreturn: the core shows the program's state.
    49 89 f7                ; mov r15, rsi
    b8 0d 00 00 00          ; mov eax, 13               rt_sigaction(SIGTRAP, SIG_DFL, NULL, 8)
    bf 05 00 00 00          ; mov edi, SIGTRAP
    48 8d 35 @default_action; lea rsi, [default_action]
    31 d2                   ; xor edx, edx
    41 ba 08 00 00 00       ; mov r10d, 8
    0f 05                   ; syscall
    b8 0e 00 00 00          ; mov eax, 14               rt_sigprocmask(SIG_BLOCK, {SIGTRAP}, NULL, 8)
    31 ff                   ; xor edi, edi
    48 8d 35 @trap_mask     ; lea rsi, [trap_mask]
    0f 05                   ; syscall
    b8 27 00 00 00          ; mov eax, 39               getpid()
    0f 05                   ; syscall
    41 89 c4                ; mov r12d, eax
    b8 ba 00 00 00          ; mov eax, 186              gettid()
    0f 05                   ; syscall
    41 89 c5                ; mov r13d, eax
    b8 29 01 00 00          ; mov eax, 297              rt_tgsigqueueinfo(pid, tid, SIGTRAP, siginfo)
    44 89 e7                ; mov edi, r12d
    44 89 ee                ; mov esi, r13d
    ba 05 00 00 00          ; mov edx, SIGTRAP
    4d 89 fa                ; mov r10, r15
    0f 05                   ; syscall
    85 c0                   ; test eax, eax
    0f 84 @leave            ; jz leave
    b8 ea 00 00 00          ; mov eax, 234              tgkill(pid, tid, SIGTRAP), which no queue limit stops
    0f 05                   ; syscall
leave:
    c3                      ; ret                       to the restorer

restorer:                   ; Unwinders know a signal frame by these very bytes (libgcc, config/i386/linux-unwind.h).
    48 c7 c0 0f 00 00 00    ; mov rax, 15               rt_sigreturn()
    0f 05                   ; syscall

gadget:
    0f 05                   ; syscall                   a remote system call
    cc                      ; int3                      its end; with nobody there to see it, park
park:
    b8 22 00 00 00          ; mov eax, 34               pause()
    0f 05                   ; syscall
    e9 @park                ; jmp park
"""


_CODE, _LABELS = assemble(_LISTING, _CODE_OFFSET, dict(_DATA_OFFSETS, table=_TABLE_OFFSET))
assert _CODE_OFFSET + len(_CODE) <= _TABLE_OFFSET


class _Slot(NamedTuple):
    """One copy and the table row of its entry."""

    first: FirstInstruction
    copy: RelocatedCopy
    row: int


class Annex:
    """The bytes of one annex, mapped at a fixed address.

    base: page-aligned, within 2 GiB of the entries with rip-relative first instructions. nbytes: whole pages.
    old_handler, old_flags: the tracee's own disposition of SIGTRAP as rt_sigaction returned it, SIG_DFL and SIG_IGN
    included; traps that are not radium's go there. A second annex, for entries too far from the first, takes the
    first one's handler as its old one.
    """

    def __init__(self, base: int, nbytes: int, *, old_handler: int = SIG_DFL, old_flags: int = 0) -> None:
        if base % PAGE_SIZE or nbytes % PAGE_SIZE or nbytes <= 0:
            raise ValueError(f"an annex of whole pages, not {nbytes} bytes at {base:#x}")
        self.range = AddrRange(base, base + nbytes)
        self.capacity = (nbytes - _TABLE_OFFSET - _ROW.size) // (_ROW.size + MAX_COPY_NBYTES)
        self.old_handler = old_handler
        self._old_flags = old_flags
        self._copies_at = self.range.end - self.capacity * MAX_COPY_NBYTES
        self._slots: list[_Slot] = []
        self._current: dict[int, _Slot] = {}  # by entry
        self._image = bytearray(nbytes)
        self._pending: list[tuple[int, bytes]] = []
        data = _DATA.pack(old_handler, nbytes, 1 << (SIGTRAP - 1))
        self._put(base, data.ljust(_CODE_OFFSET, b"\0") + _CODE)

    def copy(self) -> "Annex":
        """The same annex in the memory of a forked child."""
        out = copy.copy(self)
        out._slots, out._current = list(self._slots), dict(self._current)
        out._image, out._pending = bytearray(self._image), list(self._pending)
        return out

    def chain_to(self, old_handler: int, old_flags: int) -> None:
        """What is not radium's goes there; before, the annex knows of no handler but the default."""
        self.old_handler, self._old_flags = old_handler, old_flags
        self._put(self.range.start, _QUAD.pack(old_handler))

    @property
    def handler(self) -> Addr:
        """The SIGTRAP handler."""
        return self._label("handler")

    @property
    def restorer(self) -> Addr:
        """rt_sigreturn, for sa_restorer."""
        return self._label("restorer")

    @property
    def park(self) -> Addr:
        """A loop of pause() that leaves only by a changed rip."""
        return self._label("park")

    @property
    def gadget(self) -> Addr:
        """`syscall; int3`, for remote system calls. Should the tracer die between the two, the thread parks."""
        return self._label("gadget")

    def kernel_sigaction(self) -> bytes:
        """The 32 bytes that rt_sigaction(SIGTRAP, ..., 8) takes to install the handler.

        SA_NODEFER: a chained handler may itself call a split function, and an int3 with SIGTRAP blocked kills.
        SA_ONSTACK: a split function may be entered on a stack with little room (coroutines), where a frame of a
        kilobyte and the extended state does not fit; without an alternate stack it changes nothing, and a thread
        that is on it already stays on it, below what it uses.
        """
        flags = SA_SIGINFO | SA_RESTORER | SA_NODEFER | SA_ONSTACK | self._old_flags & SA_RESTART
        if self.old_handler == SIG_IGN:
            # An ignored signal interrupts no system call.
            flags |= SA_RESTART
        return _KERNEL_SIGACTION.pack(self.handler, flags, self.restorer, 0)

    def add(self, first: FirstInstruction) -> Addr:
        """Give the entry a relocated copy and a row of the table; returns the copy's address.

        The same instruction again returns the same copy; another one at the same entry (a library was replaced)
        gets a copy of its own, and the row changes. Raises NotPossible when it cannot be relocated or no slot is left.
        """
        current = self._current.get(first.address)
        if current and current.first.raw == first.raw:
            return current.copy.address
        if len(self._slots) == self.capacity:
            raise NotPossible(
                f"no room for another breakpoint, {self.capacity} are there",
                where=f"{first.address:#x}",
                advice="name fewer functions in the profile",
            )
        copy = build_copy(first, self._copies_at + len(self._slots) * MAX_COPY_NBYTES)
        slot = _Slot(first, copy, current.row if current else len(self._current))
        self._slots.append(slot)
        self._current[first.address] = slot
        self._put(copy.address, copy.code)
        self._put(self._label("table") + slot.row * _ROW.size, _ROW.pack(first.address + 1, copy.address))
        return copy.address

    def image(self) -> bytes:
        """The whole annex as it should be now."""
        return bytes(self._image)

    def pending(self) -> list[tuple[Addr, bytes]]:
        """The pieces changed since the last asking, to be written in this order; all of it at first.

        They count as written: after a failed write, write the whole image.
        """
        pieces, self._pending = self._pending, []
        return [(Addr(address), data) for address, data in pieces]

    @property
    def has_room(self) -> bool:
        return len(self._slots) < self.capacity

    def resume_points(self) -> list[tuple[int, int]]:
        """(address in a copy, where a thread found there goes on without the annex), for all copies."""
        return [
            (slot.copy.address + offset, address) for slot in self._slots for offset, address in slot.copy.resume.items()
        ]

    def copy_of(self, entry: int) -> Addr | None:
        slot = self._current.get(entry)
        return slot.copy.address if slot else None

    def entry_of(self, address: int) -> Addr | None:
        """The entry whose copy contains the address, its padding included."""
        slot = self._slot_at(address)
        return slot.first.address if slot else None

    def resume_address(self, rip: int) -> Addr | None:
        """Where a thread at `rip` goes on once the breakpoints and the annex are gone.

        Outside the annex that is `rip`. None: it is in the middle of something (the handler, the second half of a
        copied call, park) and must first be run on, or be moved by whoever sent it there.
        """
        if rip not in self.range:
            return Addr(rip)
        slot = self._slot_at(rip)
        return slot.copy.resume.get(rip - slot.copy.address) if slot else None

    def _slot_at(self, address: int) -> _Slot | None:
        number = (address - self._copies_at) // MAX_COPY_NBYTES
        return self._slots[number] if 0 <= number < len(self._slots) else None

    def _label(self, name: str) -> Addr:
        return Addr(self.range.start + _LABELS[name])

    def _put(self, address: int, data: bytes) -> None:
        offset = address - self.range.start
        self._image[offset : offset + len(data)] = data
        self._pending.append((address, data))
