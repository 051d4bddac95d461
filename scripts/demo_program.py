#!/usr/bin/env python3
"""A plain program that multiplies matrices and knows nothing of radium: the one that the demo splits.

Prints a line per round: its number and the SHA-256 of the product's bytes. With the same NumPy on the same CPU it
prints the same lines each time. NumPy has as many threads as it likes. Without --rounds it goes on until it is ended.
Example: python scripts/demo_program.py --rounds 3
"""

import argparse
import hashlib
import itertools
import time

import numpy as np

SIZE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="multiply matrices and print what came out")
    parser.add_argument("--rounds", type=int, help="end after so many rounds")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to rest between rounds")
    options = parser.parse_args()

    rng = np.random.default_rng(2024)
    for number in itertools.count(1):
        left, right = rng.standard_normal((2, SIZE, SIZE))
        print(number, hashlib.sha256(left @ right).hexdigest(), flush=True)
        if number == options.rounds:
            return
        time.sleep(options.pause)


if __name__ == "__main__":
    main()
