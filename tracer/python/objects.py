"""Objects of the interpreter, read from the tracee's memory: how their calls can be trapped.

Sources: Include/cpython/object.h (PyTypeObject), descrobject.h, methodobject.h of CPython 3.9 to 3.14: these fields lie where
they are since 3.8.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from radium.linux import vm
from radium.tracer.python.runtime import Runtime

TYPE_AT = 8
_NAME_AT, VECTORCALL_OFFSET_AT, _AS_ASYNC_AT, FLAGS_AT, ITERNEXT_AT = 24, 56, 80, 168, 224
# The word of a class with tp_versions_used, and the most that it may be (CPython 3.13, typeobject.c).
VERSIONS_AT, VERSIONS_MASK, MOST_VERSIONS = 408, 0xFFFF << 16, 1000 << 16
# PyAsyncMethods
_AWAIT_AT, _SEND_AT = 0, 24
BASETYPE, HAVE_VECTORCALL, METHOD_DESCRIPTOR = 1 << 10, 1 << 11, 1 << 17
# PyCFunctionObject.m_ml, PyMethodDescrObject.d_method; both lead to a PyMethodDef. PyWrapperDescrObject.d_wrapped.
_METHOD_AT = {"PyCFunction_Type": 16, "PyMethodDescr_Type": 40, "PyClassMethodDescr_Type": 40}
_DEFINED_AT, _WRAPPED_AT = 8, 48


class Way(NamedTuple):
    """How an object's calls can be trapped: at the slot at this address, or at a native function. Else `why_not`."""

    slot: int = 0
    native: int = 0
    is_function: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Objects:
    pid: int
    runtime: Runtime

    def word(self, address: int) -> int:
        return int.from_bytes(vm.read(self.pid, address, 8), "little")

    def text(self, address: int) -> str:
        """A C string, cut after 256 bytes."""
        out = b""
        while address and len(out) < 256 and b"\0" not in out:
            out += vm.read(self.pid, address + len(out), min(64, 4096 - (address + len(out)) % 4096))
        return out.partition(b"\0")[0].decode(errors="replace")

    @cached_property
    def function_type(self) -> int:
        return self.runtime.data("PyFunction_Type")

    @cached_property
    def _method_at(self) -> dict[int, int]:
        return {self.runtime.data(name): offset for name, offset in _METHOD_AT.items()}

    @cached_property
    def _wrapper_type(self) -> int:
        return self.runtime.data("PyWrapperDescr_Type")

    def await_slot(self, kind: int) -> int:
        """Of a type that has one."""
        return self.word(kind + _AS_ASYNC_AT) + _AWAIT_AT

    def send_slot(self, kind: int) -> int:
        """Of a type that has one (CPython 3.10)."""
        return self.word(kind + _AS_ASYNC_AT) + _SEND_AT

    def way(self, thing: int) -> Way:
        """Raises RemoteFault."""
        kind = self.word(thing + TYPE_AT)
        if kind in self._method_at:
            return Way(native=self.word(self.word(thing + self._method_at[kind]) + _DEFINED_AT))
        if kind == self._wrapper_type:
            return Way(native=self.word(thing + _WRAPPED_AT))
        if not self.word(kind + FLAGS_AT) & HAVE_VECTORCALL:
            return Way(why_not=f"is a {self.text(self.word(kind + _NAME_AT))}, whose calls cannot be told apart")
        slot = thing + self.word(kind + VECTORCALL_OFFSET_AT)
        if not self.word(slot):
            return Way(why_not="its vectorcall slot is empty")
        return Way(slot, is_function=kind == self.function_type)
