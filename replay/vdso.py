"""The kernel's own code in a mirror whose kernel is not the tracee's.

The vdso belongs to a kernel: its code reads the data pages (vvar) of the kernel that it came with. Where both kernels
have the same image, the vessel's own vdso is moved to the tracee's address. Where they differ, the tracee's image is put
there as plain memory, and each of its functions begins with a jump to the function of that name in our own vdso.
Source: vdso(7); System V psABI 3.2.1: rax is free at a function's entry.
"""

import struct

from radium.core.elf import ElfImage

_JUMP = struct.Struct("<2sQ2s")


def patched(image: bytes, own_image: bytes, own_base: int) -> bytes:
    """The tracee's vdso `image`, its functions leading to those of our own, which lies at own_base. Raises NotPossible.

    A function that our kernel lacks keeps its code: it would read data that is not there, and the call goes home.
    """
    out = bytearray(image)
    own = ElfImage.parse(own_image, "our own vdso").exported_by_name
    for symbol in ElfImage.parse(image, "the tracee's vdso").exported:
        ours = own.get(symbol.name)
        if ours and symbol.size >= _JUMP.size:
            target = own_base + ours[0].value
            # mov rax, imm64; jmp rax
            out[symbol.value : symbol.value + _JUMP.size] = _JUMP.pack(b"\x48\xb8", target, b"\xff\xe0")
    return bytes(out)
