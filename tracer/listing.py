"""Machine code that radium writes into a tracee, from a listing in which everybody can read what the bytes do.

A line is `label:`, or the bytes of one instruction in hex, with `; what it says` behind; `@label` stands for the rel32 of a
label, of the listing or of `places`. Tests disassemble the listings and compare the two columns.
"""

import struct
from collections.abc import Mapping


def assemble(listing: str, offset: int, places: Mapping[str, int]) -> tuple[bytes, dict[str, int]]:
    """The code, which is to lie at `offset`, and the offsets of all labels, those of `places` included.

    All offsets count from one base, wherever that is. Raises KeyError for an unknown label.
    """
    labels = dict(places)
    code = bytearray()
    references = []
    for line in listing.splitlines():
        for word in line.partition(";")[0].split():
            if word.endswith(":"):
                labels[word[:-1]] = offset + len(code)
            elif word.startswith("@"):
                references.append((len(code), word[1:]))
                code += bytes(4)
            else:
                code += bytes.fromhex(word)
    for at, label in references:
        struct.pack_into("<i", code, at, labels[label] - (offset + at + 4))
    return bytes(code), labels
