"""From registers and a copy of the stack to the addresses of the frames, by the unwind tables (.eh_frame) of the files.

elfutils' libdw does it, as it does for perf: every Dwfl is given the ELF files that a process has mapped, and reads the
copy of the stack instead of the process. So the process is neither stopped nor read. Code without tables (JIT) is passed
by its frame pointers where it has some. Nothing is fetched: debug files are not looked for.

Sources: elfutils/libdwfl.h; psABI for AMD64, figure 3.36 (numbers of the registers).
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Sequence, Set
from functools import cache
from typing import Any, NamedTuple

from radium.core.addr import PAGE_SIZE, USER_END, page_floor
from radium.core.mapping import Mapping, parse_maps
from radium.errors import NotPossible
from radium.linux import procfs
from radium.tracer.resolve import MappedObject

INSTALL = "sudo apt-get install libdw1"
_EV_CURRENT = 1
RSP, RIP, NREGISTERS = 7, 16, 17
_OK, _ABORT = 0, 1
# From an old return address the way often ends at once, as if a thread had begun there: real ones begin in libc, or _start.
_FEWEST_FRAMES = 3
# A stack that is deeper is none that a person reads; recursion without end is cut here.
MAX_FRAMES = 512
_WORD = struct.Struct("<Q")

_Address = ctypes.c_uint64
_FindElf = ctypes.CFUNCTYPE(ctypes.c_int)
_NextThread = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
_GetThread = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
)
_MemoryRead = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, _Address, ctypes.POINTER(ctypes.c_uint64), ctypes.c_void_p
)
_SetRegisters = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
_OnFrame = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Callbacks(ctypes.Structure):
    """Dwfl_Callbacks"""

    _fields_ = [
        ("find_elf", _FindElf),
        ("find_debuginfo", _FindElf),
        ("section_address", ctypes.c_void_p),
        ("debuginfo_path", ctypes.c_void_p),
    ]


class _ThreadCallbacks(ctypes.Structure):
    """Dwfl_Thread_Callbacks"""

    _fields_ = [
        ("next_thread", _NextThread),
        ("get_thread", _GetThread),
        ("memory_read", _MemoryRead),
        ("set_initial_registers", _SetRegisters),
        ("detach", ctypes.c_void_p),
        ("thread_detach", ctypes.c_void_p),
    ]


class Vdso(NamedTuple):
    """The kernel's own code in a process, which is in no file."""

    start: int


class Frames(NamedTuple):
    """addresses: innermost first, each inside of the instruction that runs or that made the call. pointers: the stack
    pointer in each frame, where the call that it is in has returned. exact: by tables alone.

    whole: up to where the thread began; else the tables, or the copy of the stack, ended before.
    """

    addresses: tuple[int, ...]
    pointers: tuple[int, ...]
    whole: bool
    exact: bool = True


class Unwinder:
    """Of one process. Files are opened when a frame is in them. To be closed."""

    def __init__(self, object_at: Callable[[int], "MappedObject | Vdso | None"]) -> None:
        """object_at: what the process has mapped at an address and may execute. Raises NotPossible without libdw."""
        self._dw = _load()
        self._object_at = object_at
        self._reported: set[MappedObject | Vdso] = set()
        self._dwfl: int | None = None
        self._stack, self._stack_at = b"", 0
        self._registers = (ctypes.c_uint64 * NREGISTERS)()
        self._found: list[int] = []
        self._pointers: list[int] = []
        self._missing: MappedObject | Vdso | None = None
        # libdw keeps pointers to all of these.
        self._never = _FindElf(lambda: -1)
        self._callbacks = _Callbacks(self._never, self._never, None, None)
        self._thread_callbacks = _ThreadCallbacks(
            _NextThread(lambda dwfl, argument, found: 0),
            _GetThread(lambda dwfl, tid, argument, found: True),
            _MemoryRead(self._read),
            _SetRegisters(self._set_registers),
            None,
            None,
        )
        self._on_frame = _OnFrame(self._note)
        self._pc, self._pointer, self._is_activation = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_bool()

    def keep(self, files: "Set[MappedObject | Vdso]") -> None:
        """What the process has mapped now: forgets all if anything has gone."""
        if not self._reported <= files:
            self.close()

    def unwind(self, registers: Sequence[int], stack: bytes) -> Frames:
        """registers: NREGISTERS, as DWARF numbers them; stack: the bytes from the stack pointer on.

        Assembler code often has no tables, and runs most of the time in some libraries (OpenBLAS): if the innermost
        function has none, the first word of the stack is taken for its return address that lies in the same file and from
        which a whole way leads on. Others are left alone: stacks are full of old ones.
        """
        self._stack, self._stack_at = stack, registers[RSP]
        frames = self._walk(registers)
        if frames.whole or len(frames.addresses) != 1:
            return frames
        for at, word in self._return_addresses(frames.addresses[0], stack):
            above = list(registers)
            above[RIP], above[RSP] = word, registers[RSP] + 8 * (at + 1)
            further = self._walk(above)
            if further.whole and len(further.addresses) >= _FEWEST_FRAMES:
                # As a return address it lies in the call before it.
                addresses = (frames.addresses[0], word - 1, *further.addresses[1:])
                return Frames(addresses, (*frames.pointers, *further.pointers), whole=True, exact=False)
        return frames

    def _return_addresses(self, address: int, stack: bytes) -> Iterator[tuple[int, int]]:
        """(index, word) of those on the stack that lie in the same file as that address."""
        own = self._object_at(address)
        for at, word in enumerate(struct.unpack_from(f"<{len(stack) // 8}Q", stack)):
            if PAGE_SIZE < word < USER_END and self._object_at(word) is own and self._is_behind_call(word):
                yield at, word

    def _walk(self, registers: Sequence[int]) -> Frames:
        self._registers[:] = list(registers)
        while True:
            self._found, self._pointers, self._missing = [], [], None
            status = self._dw.dwfl_getthread_frames(self._session(), 1, self._on_frame, None)
            if self._missing is None:
                return Frames(tuple(self._found), tuple(self._pointers), status == 0)
            self._report(self._missing)

    def close(self) -> None:
        if self._dwfl is not None:
            self._dw.dwfl_end(self._dwfl)
        self._dwfl = None
        self._reported = set()

    def _session(self) -> int:
        if self._dwfl is None:
            self._dwfl = self._dw.dwfl_begin(ctypes.byref(self._callbacks))
            # Any pid does: threads, registers and memory are the callbacks' affair. The image says which machine it is.
            callbacks = ctypes.byref(self._thread_callbacks)
            if not self._dw.dwfl_attach_state(self._dwfl, _some_elf(), 1, callbacks, None):
                raise NotPossible(f"libdw refuses to unwind: {self._dw.dwfl_errmsg(-1).decode()}")
        return self._dwfl

    def _report(self, one: "MappedObject | Vdso") -> None:
        """A file that cannot be read, or is not ELF to libdw, is passed over: its frames have no tables then."""
        self._reported.add(one)
        try:
            fd, first = _opened(one)
        except (OSError, NotPossible):
            return
        session = self._session()
        self._dw.dwfl_report_begin_add(session)
        # The name tells modules apart.
        if not self._dw.dwfl_report_elf(session, b"%x" % first, b"", fd, first, False):
            os.close(fd)
        self._dw.dwfl_report_end(session, None, None)

    def _note(self, frame: int, argument: Any) -> int:
        if not self._dw.dwfl_frame_pc(frame, ctypes.byref(self._pc), ctypes.byref(self._is_activation)):
            return _ABORT
        address = self._pc.value if self._is_activation.value else self._pc.value - 1
        one = self._object_at(address)
        if one is not None and one not in self._reported:
            self._missing = one
            return _ABORT
        self._found.append(address)
        if self._dw.dwfl_frame_reg(frame, RSP, ctypes.byref(self._pointer)):
            return _ABORT
        self._pointers.append(self._pointer.value)
        return _OK if len(self._found) < MAX_FRAMES else _ABORT

    def _is_behind_call(self, address: int) -> bool:
        """Whether an instruction that may be a call ends there: E8 with 4 bytes, or FF /2 with 1 to 6 (Intel SDM, CALL)."""
        one = self._object_at(address)
        if not isinstance(one, MappedObject):
            return False
        try:
            before = one.image.at(address - one.base - 7, 7)
        except NotPossible:
            return False
        return before[2] == 0xE8 or any(before[at] == 0xFF and before[at + 1] >> 3 & 7 == 2 for at in range(6))

    def _read(self, dwfl: int, address: int, result: Any, argument: Any) -> bool:
        at = address - self._stack_at
        if not 0 <= at <= len(self._stack) - 8:
            return False
        result[0] = _WORD.unpack_from(self._stack, at)[0]
        return True

    def _set_registers(self, thread: int, argument: Any) -> bool:
        return bool(self._dw.dwfl_thread_state_registers(thread, 0, NREGISTERS, self._registers))


@cache
def _own_vdso() -> Mapping:
    return next(one for one in parse_maps(procfs.read(os.getpid(), "maps")) if one.path == "[vdso]")


def _vdso_image() -> bytes:
    """The kernel gives all 64-bit processes the same, so ours will do."""
    own = _own_vdso()
    return ctypes.string_at(own.start, own.end - own.start)


@cache
def _some_elf() -> int:
    elf = ctypes.CDLL("libelf.so.1")
    elf.elf_version(_EV_CURRENT)
    elf.elf_memory.restype, elf.elf_memory.argtypes = _POINTER, [_POINTER, ctypes.c_size_t]
    own = _own_vdso()
    return int(elf.elf_memory(own.start, own.end - own.start))


def _opened(one: "MappedObject | Vdso") -> tuple[int, int]:
    """A descriptor of the file, and the address of the first page of its first segment. Raises OSError, NotPossible."""
    if isinstance(one, Vdso):
        fd = os.memfd_create("vdso")
        os.write(fd, _vdso_image())
        return fd, one.start
    fd = os.open(one.file.path, os.O_RDONLY | os.O_CLOEXEC)
    return fd, one.base + page_floor(min(segment.vaddr for segment in one.image.segments))


@cache
def _load() -> ctypes.CDLL:
    try:
        dw = ctypes.CDLL("libdw.so.1")
        for name, result, arguments in _FUNCTIONS:
            function = getattr(dw, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NotPossible(f"stacks are unwound by elfutils' libdw, which cannot be loaded ({error})", advice=INSTALL) from None
    return dw


_POINTER = ctypes.c_void_p
_FUNCTIONS: list[tuple[str, Any, list[Any]]] = [
    ("dwfl_begin", _POINTER, [_POINTER]),
    ("dwfl_end", None, [_POINTER]),
    ("dwfl_errmsg", ctypes.c_char_p, [ctypes.c_int]),
    ("dwfl_report_begin_add", None, [_POINTER]),
    (
        "dwfl_report_elf",
        _POINTER,
        [_POINTER, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, _Address, ctypes.c_bool],
    ),
    ("dwfl_report_end", ctypes.c_int, [_POINTER, _POINTER, _POINTER]),
    ("dwfl_attach_state", ctypes.c_bool, [_POINTER, _POINTER, ctypes.c_int, _POINTER, _POINTER]),
    ("dwfl_getthread_frames", ctypes.c_int, [_POINTER, ctypes.c_int, _OnFrame, _POINTER]),
    ("dwfl_frame_pc", ctypes.c_bool, [_POINTER, _POINTER, _POINTER]),
    ("dwfl_frame_reg", ctypes.c_int, [_POINTER, ctypes.c_uint, _POINTER]),
    ("dwfl_thread_state_registers", ctypes.c_bool, [_POINTER, ctypes.c_int, ctypes.c_uint, _POINTER]),
]
