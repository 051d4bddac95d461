"""A plain NumPy program: seeded matrices, repeated products, one checksum per round.

matmul.py ROUNDS [SIZE]: ROUNDS rounds; with 0 it runs until SIGTERM. Knows nothing of radium.
"""

import hashlib
import os
import signal
import sys

import numpy as np


def products(size):
    """Yields an endless, deterministic sequence of products."""
    generator = np.random.default_rng(42)
    left, right = generator.random((size, size)), generator.random((size, size))
    while True:
        product = left @ right
        yield product
        right = product / product.max()


def main():
    rounds, size = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 256
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    print("READY", flush=True)
    if "TARGET_HOLD" in os.environ:
        os.read(0, 1)
    for number, product in enumerate(products(size), 1):
        print(number, hashlib.sha256(product.tobytes()).hexdigest(), flush=True)
        if told or number == rounds:
            break
    print("EXIT-SUCCESS", flush=True)


main()
