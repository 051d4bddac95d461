"""PEP 768: CPython 3.14 can be asked from outside to run a file at its next safe point, unless that has been forbidden.

We ask for an empty one: on its way to open it the interpreter calls a function, at whose entry is our breakpoint.

Sources: PEP 768; "Remote debugging attachment protocol" of CPython's documentation; Include/internal/pycore_debug_offsets.h,
pycore_ceval.h and Python/ceval_gil.c of 3.14.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from radium.errors import NotPossible, RemoteFault
from radium.linux import vm
from radium.tracer.python.objects import Objects

SCRIPT = b"/dev/null\0"
_COOKIE, _VERSION = b"xdebugpy", (3, 14)
_PLEASE_STOP = 1 << 5
# Words of _Py_DebugOffsets: of runtime_state, interpreter_state, and the six of debugger_support.
_INTERPRETERS_HEAD, _NEXT, _THREADS_MAIN, _SUPPORT, _NWORDS = 5, 8, 10, 89, 95
_SCRIPT_ROOM = 512
# sizeof(PyASCIIObject): behind it are the characters.
_ASCII_NBYTES = 40


@dataclass(frozen=True)
class StopRequest:
    """Addresses in the main thread's state. entry: of the function that the interpreter calls, with the file's name in rdi."""

    objects: Objects
    entry: int
    breaker: int
    pending: int
    path: int

    @classmethod
    def find(cls, objects: Objects) -> "StopRequest | None":
        """None: this interpreter, which has been initialised, cannot be asked."""
        try:
            at, entry = objects.runtime.data("_PyRuntime"), objects.runtime.function("PyFile_OpenCodeObject")
            raw = vm.read(objects.pid, at, 8 * _NWORDS)
            words = struct.unpack(f"<{_NWORDS}Q", raw)
            breaker, support, enabled, pending, path, room = words[_SUPPORT:]
            if raw[:8] != _COOKIE or (words[1] >> 24, words[1] >> 16 & 0xFF) != _VERSION or room != _SCRIPT_ROOM:
                return None
            if Path(f"/proc/{objects.pid}/root/dev/null").stat().st_size:
                return None
            interpreter = objects.word(at + words[_INTERPRETERS_HEAD])
            while following := objects.word(interpreter + words[_NEXT]):
                # Sub-interpreters come before the main one.
                interpreter = following
            state = objects.word(interpreter + words[_THREADS_MAIN])
            if not state or not objects.word(interpreter + enabled) & 0xFFFFFFFF:
                return None
        except (NotPossible, RemoteFault, OSError):
            # OSError: a program whose root has no /dev/null would complain of that on its stderr.
            return None
        return cls(objects, entry, state + breaker, state + support + pending, state + support + path)

    def ask(self) -> None:
        """All threads are stopped. Raises RemoteFault."""
        pid = self.objects.pid
        vm.write(pid, self.path, SCRIPT)
        vm.write(pid, self.pending, (1).to_bytes(4, "little"))
        vm.write(pid, self.breaker, (self.objects.word(self.breaker) | _PLEASE_STOP).to_bytes(8, "little"))

    def is_answer(self, name: int) -> bool:
        """Whether the file that is opened, whose name is a str, is the one we asked for. Raises RemoteFault."""
        return vm.read(self.objects.pid, name + _ASCII_NBYTES, len(SCRIPT)) == SCRIPT
