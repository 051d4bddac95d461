"""Matrix products by NumPy in child processes, made by the method that is named; every product is one of whole numbers.

workers.py fork|spawn|forkserver. Knows nothing of radium.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np


def product(n):
    left = np.arange(256 * 256, dtype=float).reshape(256, 256) % (n + 3)
    right = left[::-1] + n
    return int((left @ right).sum())


def send(queue, n):
    queue.put(product(n))


def main():
    context = multiprocessing.get_context(sys.argv[1])
    print("READY", product(1), flush=True)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(product, range(6))), flush=True)
    with context.Pool(2) as pool:
        print(pool.map(product, range(4)), flush=True)
    queue = context.Queue()
    child = context.Process(target=send, args=(queue, 9))
    child.start()
    print(queue.get())
    child.join()
    print("exit", child.exitcode)
    print("EXIT-SUCCESS")


if __name__ == "__main__":
    main()
