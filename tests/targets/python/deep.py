"""deep.py DEPTH: recursions that the C stack could not take."""

import sys

from common import ready, success


def down(depth):
    return 0 if depth == 0 else 1 + down(depth - 1)


def even(depth):
    return depth == 0 or odd(depth - 1)


def odd(depth):
    return depth != 0 and even(depth - 1)


def endless(depth):
    return endless(depth + 1)


def main():
    depth = int(sys.argv[1])
    ready()
    sys.setrecursionlimit(2 * depth)
    for _ in range(2):
        print(down(depth), even(depth), down(10))
    sys.setrecursionlimit(1000)
    try:
        endless(0)
    except RecursionError as error:
        print(error)
    success()


main()
