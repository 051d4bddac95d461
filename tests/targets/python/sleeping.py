"""sleeping.py HOW SECONDS: a thread calls a function while the main thread waits, in a way of its choice."""

import select
import sys
import threading
import time

from common import ready, success

ended = threading.Event()
calls = 0


def heavy(number):
    squares = {}
    for value in range(number):
        squares[value] = value * value
    return sum(squares.values())


def work():
    global calls
    while not ended.is_set():
        assert heavy(100) == 328350
        calls += 1
        time.sleep(0.01)


def sleep(how, seconds, worker):
    end = time.monotonic() + seconds
    timer = threading.Timer(seconds, ended.set)
    timer.start()
    if how == "sleep":
        time.sleep(seconds)
    elif how == "join":
        worker.join()
    elif how == "lock":
        lock = threading.Lock()
        lock.acquire()
        threading.Timer(seconds, lock.release).start()
        lock.acquire()
    elif how == "timed":
        threading.Event().wait(seconds)
    elif how == "select":
        select.select([], [], [], seconds)
    else:
        while time.monotonic() < end:
            pass
    assert time.monotonic() >= end - 0.01, "woken too early"


def main():
    how, seconds = sys.argv[1], float(sys.argv[2])
    worker = threading.Thread(target=work)
    worker.start()
    ready()
    sleep(how, seconds, worker)
    ended.set()
    worker.join()
    assert calls > 0
    success()


main()
