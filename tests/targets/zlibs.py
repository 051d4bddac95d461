"""Compresses seeded bytes with CPython's zlib, which calls deflate of the system's libz; one checksum per round."""

import hashlib
import random
import sys
import zlib


def main():
    generator = random.Random(5)
    words = [generator.randbytes(6) for _ in range(300)]
    for level in range(1, 10):
        text = b"".join(generator.choice(words) for _ in range(40_000))
        packed = zlib.compress(text, level)
        assert zlib.decompress(packed) == text
        print(level, len(packed), hashlib.sha256(packed).hexdigest(), flush=True)
    print("EXIT-SUCCESS", flush=True)


print("READY", flush=True)
sys.exit(main())
