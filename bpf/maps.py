"""BPF maps, as bytes: bpf(2), uapi/linux/bpf.h."""

import ctypes
import struct
from collections.abc import Iterator

from radium.linux.libc import syscall

_LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _LOOKUP_AND_DELETE = 1, 2, 3, 4, 21


class Map:
    """A hash or array; not one with a value for each CPU. It is its programs' own, and closed with them."""

    def __init__(self, fd: int, key_nbytes: int, value_nbytes: int) -> None:
        self.fd = fd
        self.key_nbytes, self.value_nbytes = key_nbytes, value_nbytes
        self._key = ctypes.create_string_buffer(self.key_nbytes)
        self._value = ctypes.create_string_buffer(self.value_nbytes)
        addresses = (ctypes.addressof(self._key), ctypes.addressof(self._value))
        self._attr = ctypes.create_string_buffer(struct.pack("<IIQQQ", fd, 0, *addresses, 0))
        # What a command does not use must be zero.
        self._key_attr = ctypes.create_string_buffer(struct.pack("<IIQQQ", fd, 0, addresses[0], 0, 0))

    def get(self, key: bytes) -> bytes | None:
        return self._value.raw if self._call(_LOOKUP, key) else None

    def take(self, key: bytes) -> bytes | None:
        """The value, which is not there any more. Hashes only (kernel 5.14)."""
        return self._value.raw if self._call(_LOOKUP_AND_DELETE, key) else None

    def set(self, key: bytes, value: bytes) -> None:
        self._value.raw = value
        self._call(_UPDATE, key)

    def remove(self, key: bytes) -> bool:
        """Whether it was there."""
        self._key.raw = key
        return _bpf(_DELETE, self._key_attr)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Those that are there all the time are told; if others come and go, some may be told twice or not at all."""
        key: bytes | None = None
        while (key := self._next_key(key)) is not None:
            value = self.get(key)
            if value is not None:
                yield key, value

    def _next_key(self, key: bytes | None) -> bytes | None:
        before = ctypes.create_string_buffer(key or b"", self.key_nbytes)
        after = ctypes.create_string_buffer(self.key_nbytes)
        address = ctypes.addressof(before) if key is not None else 0
        attr = ctypes.create_string_buffer(struct.pack("<IIQQQ", self.fd, 0, address, ctypes.addressof(after), 0))
        return after.raw if _bpf(_NEXT_KEY, attr) else None

    def _call(self, command: int, key: bytes) -> bool:
        self._key.raw = key
        return _bpf(command, self._attr)


def _bpf(command: int, attr: "ctypes.Array[ctypes.c_char]") -> bool:
    """False: there is no such key."""
    try:
        syscall("bpf", command, ctypes.addressof(attr), ctypes.sizeof(attr))
    except FileNotFoundError:
        return False
    return True
