"""The gates: a mapping of radium's in the tracee through which calls of split Python functions go.

CPython calls most objects through a pointer in the object itself, its vectorcall slot (PEP 590). A split function's slot
leads to a gate of its own instead, which only says who was called and jumps on; all gates meet in `common`, where the one
breakpoint is. So the function stays the object that it was, for everybody who has a reference to it, and no frame of
radium's is on any stack. With a guard the way leads through `guarded`, which asks a Python function first.

    base     data      active, and addresses of the interpreter's
    +0x1000  tables    for each gate: target; guard, or twin; how often the guard said no, how often it raised
             room      what is given to functions of the interpreter: texts
             code      pending, visit, guarded, making, common; then 16 bytes for each gate

A generator does its work not when its function is called, but in each `next`: there the gate leads through `making`, which
gives the new generator another type, its twin, whose slots lead to gates. So it is with coroutines.

Radium calls functions of the interpreter by a visit (visits.py): `ask` is where the visited thread stops for each of
them. Whatever radium is doing when it is killed, the code goes on by itself: `ask` finds 0 in rax and ends the visit. What
it would owe the interpreter then (a GIL to let go, a tracing to take up again) is in registers, and is done first.
From 3.11 on CPython calls a Python function from another without the C stack, but one that is called through a gate takes
some. So that a deep recursion does not meet the end of the stack, gates of functions lead through `checked` first: beyond
some depth of the interpreter's the function is made a plain one again, and `lifted` says that this has been done.

`active` counts the threads that are in functions which this code has called: while there is one, the mapping must stay.

Sources: PEP 590; psABI 3.2.2 and 3.2.3; arch/x86/kernel/signal_64.c (rt_sigreturn takes its frame at rsp - 8).
"""

import struct
from dataclasses import dataclass
from typing import Literal

from radium.core.addr import PAGE_SIZE
from radium.tracer.listing import assemble

GateKind = Literal["common", "checked", "guarded", "making"]
MOST = 4096
GATE_NBYTES = 16
ROOM_NBYTES = 1 << 20
_TABLE_NBYTES = 8 * MOST
_TABLES = {
    name: PAGE_SIZE + _TABLE_NBYTES * number for number, name in enumerate(("targets", "guards", "rejected", "failed", "bases"))
}
_ROOM = PAGE_SIZE + 5 * _TABLE_NBYTES
_CODE = _ROOM + ROOM_NBYTES
_GATES = _CODE + PAGE_SIZE
NBYTES = _GATES + GATE_NBYTES * MOST
# What `guarded` needs of the interpreter, a word of data each: functions, and two objects.
FUNCTIONS = {
    "vectorcall": ("PyObject_Vectorcall", "_PyFunction_Vectorcall"), "decref": ("Py_DecRef",), "clear": ("PyErr_Clear",),
    "matches": ("PyErr_ExceptionMatches",), "tstate": ("PyThreadState_GetUnchecked", "_PyThreadState_UncheckedGet"),
}  # fmt: skip
# Functions that CPython has from 3.11 on.
LATER_FUNCTIONS = {"enter_tracing": ("PyThreadState_EnterTracing",), "leave_tracing": ("PyThreadState_LeaveTracing",)}
# depth_at: where a thread's state has the calls that are left, an int; top: of how many, 0: that is the int behind it.
# most: so many of them may be taken. plain_at: where a function has a word that makes it a plain one, which is `plain`.
_WORDS = (
    "active", *FUNCTIONS, *LATER_FUNCTIONS, "true", "exception", "depth_at", "top", "most", "plain_at", "plain", "lifted"
)  # fmt: skip
WORDS = {name: 8 * number for number, name in enumerate(_WORDS)}

# See listing.py. rax is the gate's number from a gate on; rdi, rsi, rdx, rcx are the vectorcall's arguments.
_LISTING = """
pending:                        ; int pending(void *), which the interpreter calls at a safe point
    90                          ; nop                       the trap
    31 c0                       ; xor eax, eax
    c3                          ; ret
raised:                         ; the same when an exception is to be raised there
    b8 ff ff ff ff              ; mov eax, 0xffffffff
    c3                          ; ret

visit_asleep:                   ; a thread without the GIL: rax takes it, rbx lets go of it with what rax has said
    48 89 e5                    ; mov rbp, rsp
    48 83 e4 f0                 ; and rsp, 0xfffffffffffffff0
    ff d0                       ; call rax
    41 89 c4                    ; mov r12d, eax
    31 c0                       ; xor eax, eax
    e9 @ask                     ; jmp ask
visit:                          ; rsp is 8 above a signal frame
    48 89 e5                    ; mov rbp, rsp
    48 83 e4 f0                 ; and rsp, 0xfffffffffffffff0
    31 c0                       ; xor eax, eax
ask:
    90                          ; nop                       the trap: a function and its arguments, or no more of them
    48 85 c0                    ; test rax, rax
    0f 84 @back                 ; je back
    ff d0                       ; call rax
    49 89 c3                    ; mov r11, rax
    31 c0                       ; xor eax, eax
    e9 @ask                     ; jmp ask
back:                           ; what is owed: r13(r14), rbx(r12)
    4d 85 ed                    ; test r13, r13
    0f 84 @owes_no_call         ; je owes_no_call
    4c 89 f7                    ; mov rdi, r14
    41 ff d5                    ; call r13
owes_no_call:
    48 85 db                    ; test rbx, rbx
    0f 84 @owes_nothing         ; je owes_nothing
    44 89 e7                    ; mov edi, r12d
    ff d3                       ; call rbx
owes_nothing:
    48 89 ec                    ; mov rsp, rbp
    b8 0f 00 00 00              ; mov eax, 0xf              rt_sigreturn()
    0f 05                       ; syscall

checked:
    57                          ; push rdi
    56                          ; push rsi
    52                          ; push rdx
    51                          ; push rcx
    50                          ; push rax
    f0 48 ff 05 @active         ; lock inc qword ptr [active]
    ff 15 @tstate               ; call [tstate]
    f0 48 ff 0d @active         ; lock dec qword ptr [active]
    48 8b 0d @depth_at          ; mov rcx, [depth_at]
    44 8b 15 @top               ; mov r10d, dword ptr [top]
    45 85 d2                    ; test r10d, r10d
    0f 85 @has_top              ; jne has_top
    44 8b 54 08 04              ; mov r10d, dword ptr [rax + rcx + 4]
has_top:
    44 2b 14 08                 ; sub r10d, dword ptr [rax + rcx]
    58                          ; pop rax
    59                          ; pop rcx
    5a                          ; pop rdx
    5e                          ; pop rsi
    5f                          ; pop rdi
    44 3b 15 @most              ; cmp r10d, dword ptr [most]
    0f 8e @not_deep             ; jle not_deep
    4c 8b 15 @plain_at          ; mov r10, [plain_at]
    4c 8b 1d @plain             ; mov r11, [plain]
    4e 89 1c 17                 ; mov qword ptr [rdi + r10], r11
    48 ff 05 @lifted            ; inc qword ptr [lifted]
not_deep:
    4c 8d 1d @guards            ; lea r11, [guards]
    49 83 3c c3 00              ; cmp qword ptr [r11 + rax*8], 0
    0f 84 @common               ; je common

guarded:
    57                          ; push rdi
    56                          ; push rsi
    52                          ; push rdx
    51                          ; push rcx
    50                          ; push rax
    f0 48 ff 05 @active         ; lock inc qword ptr [active]
    4c 8b 1d @enter_tracing     ; mov r11, [enter_tracing]  whoever traces or profiles the program sees no guard
    4d 85 db                    ; test r11, r11
    0f 84 @asks                 ; je asks
    ff 15 @tstate               ; call [tstate]
    48 89 c7                    ; mov rdi, rax
    ff 15 @enter_tracing        ; call [enter_tracing]
asks:
    48 8b 04 24                 ; mov rax, qword ptr [rsp]
    48 8b 4c 24 08              ; mov rcx, qword ptr [rsp + 8]
    48 8b 54 24 10              ; mov rdx, qword ptr [rsp + 0x10]
    48 8b 74 24 18              ; mov rsi, qword ptr [rsp + 0x18]
    4c 8d 1d @guards            ; lea r11, [guards]
    49 8b 3c c3                 ; mov rdi, qword ptr [r11 + rax*8]
    48 0f ba f2 3f              ; btr rdx, 0x3f             the guard may not use the place before the arguments
    ff 15 @vectorcall           ; call [vectorcall]
    50                          ; push rax
    48 83 ec 08                 ; sub rsp, 8
    4c 8b 1d @leave_tracing     ; mov r11, [leave_tracing]
    4d 85 db                    ; test r11, r11
    0f 84 @has_asked            ; je has_asked
    ff 15 @tstate               ; call [tstate]
    48 89 c7                    ; mov rdi, rax
    ff 15 @leave_tracing        ; call [leave_tracing]
has_asked:
    48 83 c4 08                 ; add rsp, 8
    58                          ; pop rax
    48 85 c0                    ; test rax, rax
    0f 84 @guard_raised         ; je guard_raised
    45 31 d2                    ; xor r10d, r10d
    48 3b 05 @true              ; cmp rax, [true]
    41 0f 94 c2                 ; sete r10b
    41 52                       ; push r10
    48 83 ec 08                 ; sub rsp, 8
    48 89 c7                    ; mov rdi, rax
    ff 15 @decref               ; call [decref]
    48 83 c4 08                 ; add rsp, 8
    41 5a                       ; pop r10
    f0 48 ff 0d @active         ; lock dec qword ptr [active]
    58                          ; pop rax
    59                          ; pop rcx
    5a                          ; pop rdx
    5e                          ; pop rsi
    5f                          ; pop rdi
    4d 85 d2                    ; test r10, r10
    0f 85 @common               ; jne common
    4c 8d 1d @rejected          ; lea r11, [rejected]
    49 ff 04 c3                 ; inc qword ptr [r11 + rax*8]
    e9 @through                 ; jmp through
guard_raised:                   ; an Exception says no; what else there is (KeyboardInterrupt) is the program's
    48 8b 3d @exception         ; mov rdi, [exception]
    ff 15 @matches              ; call [matches]
    85 c0                       ; test eax, eax
    0f 84 @not_ours             ; je not_ours
    ff 15 @clear                ; call [clear]
    f0 48 ff 0d @active         ; lock dec qword ptr [active]
    58                          ; pop rax
    59                          ; pop rcx
    5a                          ; pop rdx
    5e                          ; pop rsi
    5f                          ; pop rdi
    4c 8d 1d @failed            ; lea r11, [failed]
    49 ff 04 c3                 ; inc qword ptr [r11 + rax*8]
    e9 @through                 ; jmp through
not_ours:
    f0 48 ff 0d @active         ; lock dec qword ptr [active]
    48 83 c4 28                 ; add rsp, 0x28
    31 c0                       ; xor eax, eax
    c3                          ; ret

making:
    50                          ; push rax
    f0 48 ff 05 @active         ; lock inc qword ptr [active]
    4c 8d 1d @targets           ; lea r11, [targets]
    41 ff 14 c3                 ; call qword ptr [r11 + rax*8]
    f0 48 ff 0d @active         ; lock dec qword ptr [active]
    59                          ; pop rcx
    48 85 c0                    ; test rax, rax
    0f 84 @made                 ; je made
    4c 8d 1d @guards            ; lea r11, [guards]
    49 8b 14 cb                 ; mov rdx, qword ptr [r11 + rcx*8]
    4c 8d 1d @bases             ; lea r11, [bases]
    49 8b 0c cb                 ; mov rcx, qword ptr [r11 + rcx*8]
    48 39 48 08                 ; cmp qword ptr [rax + 8], rcx
    0f 85 @made                 ; jne made
    48 ff 02                    ; inc qword ptr [rdx]       an object of a heap type has a reference to it
    48 89 50 08                 ; mov qword ptr [rax + 8], rdx
made:
    c3                          ; ret
itself:                         ; PyObject *am_await(PyObject *)
    48 ff 07                    ; inc qword ptr [rdi]
    48 89 f8                    ; mov rax, rdi
    c3                          ; ret

common:
    90                          ; nop                       the trap
through:
    4c 8d 1d @targets           ; lea r11, [targets]
    41 ff 24 c3                 ; jmp qword ptr [r11 + rax*8]
"""
CODE, LABELS = assemble(_LISTING, _CODE, {**WORDS, **_TABLES})
assert _CODE + len(CODE) <= _GATES


@dataclass(frozen=True)
class Gates:
    """The mapping at `base`, page-aligned. Addresses, and the bytes that belong there; it writes nothing itself."""

    base: int

    @property
    def end(self) -> int:
        return self.base + NBYTES

    @property
    def code(self) -> tuple[int, int]:
        """[start, end) of what is executable."""
        return self.base + _CODE, self.end

    @property
    def room(self) -> int:
        return self.base + _ROOM

    def __getattr__(self, label: str) -> int:
        """The address of a label of the listing, or of a data word."""
        if label in LABELS:
            return self.base + LABELS[label]
        raise AttributeError(label)

    def row(self, table: str, number: int) -> int:
        """Where a table (targets, guards, rejected, failed, bases) has the word of a gate."""
        return self.base + _TABLES[table] + 8 * number

    def address(self, number: int) -> int:
        return self.base + _GATES + GATE_NBYTES * number

    def gate(self, number: int, kind: GateKind) -> bytes:
        """mov eax, number; jmp kind."""
        at = self.address(number)
        target = self.base + LABELS[kind]
        code = b"\xb8" + struct.pack("<I", number) + b"\xe9" + struct.pack("<i", target - (at + 10))
        return code.ljust(GATE_NBYTES, b"\xcc")

    def words(self, addresses: dict[str, int]) -> bytes:
        """The data words; those that are not given are 0."""
        out = bytearray(8 * len(WORDS))
        for name, offset in WORDS.items():
            struct.pack_into("<Q", out, offset, addresses.get(name, 0))
        return bytes(out)
