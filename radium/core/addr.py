"""Addresses of another process: page arithmetic and half-open ranges.

An address in the tracee is not an offset in our own memory; it travels as `Addr`, and ranges as `AddrRange`.
"""

from typing import NamedTuple, NewType

Addr = NewType("Addr", int)

PAGE_SIZE = 4096
PAGE_MASK = PAGE_SIZE - 1
# End of the lower half of the x86-64 address space (Documentation/arch/x86/x86_64/mm.rst): no user mapping lies above.
USER_END = 1 << 47


def page_floor(address: int) -> int:
    return address & ~PAGE_MASK


def page_ceil(address: int) -> int:
    return (address + PAGE_MASK) & ~PAGE_MASK


class AddrRange(NamedTuple):
    """Half-open [start, end)."""

    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end

    def meets(self, other: "AddrRange") -> bool:
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"
