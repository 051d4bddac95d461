"""NumPy called from a pool: numpypool.py threads|processes NWORKERS ROUNDS [SIZE]. Knows nothing of radium.

Each round multiplies a matrix in the main thread and hands parts of the product to NWORKERS workers, who multiply them.
Prints a checksum per part; with 0 rounds it goes on until SIGTERM.
"""

import hashlib
import itertools
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np


def checksum(matrix):
    return hashlib.sha256(matrix.tobytes()).hexdigest()[:16]


def work(number, matrix):
    """What a worker does: some products in a row, each from the one before."""
    left = np.random.default_rng(number).random(matrix.shape)
    for _ in range(2):
        product = left @ matrix
        matrix = product / product.max()
    return checksum(matrix)


def main():
    kind, nworkers, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    size = int(sys.argv[4]) if len(sys.argv) > 4 else 160
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    generator = np.random.default_rng(7)
    print("READY", flush=True)
    if "TARGET_HOLD" in os.environ:
        os.read(0, 1)
    pools = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
    with pools[kind](nworkers) as pool:
        for number in itertools.count(1):
            left, right = generator.random((2, size, size))
            parts = list(pool.map(work, range(nworkers), [left @ right] * nworkers))
            print(number, *parts, flush=True)
            if told or number == rounds:
                break
    print("EXIT-SUCCESS", flush=True)


if __name__ == "__main__":
    main()
