"""arrays.py MEBIBYTES: a call gets a list of large arrays and reads a mebibyte of them."""

import sys

import numpy as np
from common import ready, success


def touch(arrays, nbytes):
    """So many bytes of four of them."""
    return [int(array[: nbytes // 4].sum()) for array in arrays[:: len(arrays) // 4]]


def main():
    arrays = [np.full(1 << 20, number % 100, dtype=np.uint8) for number in range(int(sys.argv[1]))]
    ready()
    for _ in range(3):
        print(sum(touch(arrays, 1 << 20)))
    success()


main()
