"""family.py: processes that are forked, from a pool and by hand, call the function as their parent does."""

import multiprocessing
import os

from common import ready, success


def heavy(number):
    return os.getpid() != parent, sum(value * value for value in range(number))


parent = os.getpid()


def main():
    multiprocessing.set_start_method("fork")
    ready()
    print(heavy(10))
    with multiprocessing.Pool(3) as pool:
        print(sorted(pool.map(heavy, range(100, 120))))
    pid = os.fork()
    if pid == 0:
        print(heavy(20), flush=True)
        os._exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), heavy(30))
    success()


main()
