"""crowd.py CALLS THREADS: many threads call one function, which takes a lock and lets go of the GIL now and then."""

import hashlib
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

from common import ready, success

lock = threading.Lock()
total = 0


def work(number):
    global total
    text = "".join(map(str, range(number)))
    data = zlib.compress(text.encode() * 40)
    if number % 7 == 0:
        time.sleep(0.0005)
    with lock:
        total += 1
    return hashlib.sha256(zlib.decompress(data)).hexdigest()


def expected(number):
    return hashlib.sha256("".join(map(str, range(number))).encode() * 40).hexdigest()


def inside(number):
    """A pool of threads made, used and ended in the call."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda value: value * value, range(number)))


def run(first, ncalls, failures):
    for call in range(ncalls):
        number = 20 + (first + call) % 30
        if work(number) != expected(number):
            failures.append(number)


def main():
    ncalls, nthreads = int(sys.argv[1]), int(sys.argv[2])
    failures = []
    ready()
    threads = [threading.Thread(target=run, args=(first, ncalls // nthreads, failures)) for first in range(nthreads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(total, failures, inside(5), inside(3))
    success()


main()
