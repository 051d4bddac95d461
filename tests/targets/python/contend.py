"""contend.py THREADS: threads that compute and sleep until SIGTERM; the main thread sleeps, again and again."""

import sys
import threading
import time

from common import ready, success, until_sigterm

is_ended = until_sigterm()


def work(number):
    total = 0
    for value in range(number):
        total += value * value
    return total


def run():
    ncalls = 0
    while not is_ended():
        assert work(300) == 8955050
        ncalls += 1
        if ncalls % 5 == 0:
            time.sleep(0.001)


def main():
    threads = [threading.Thread(target=run) for _ in range(int(sys.argv[1]))]
    for thread in threads:
        thread.start()
    ready()
    while not is_ended():
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    success()


main()
