"""alarms.py SECONDS: a signal's handler raises an exception, often; none is lost, and none comes where it should not."""

import signal
import sys
import time

from common import ready, success

raised = caught = 0


class Alarm(Exception):
    pass


def on_alarm(number, frame):
    global raised
    raised += 1
    raise Alarm


def heavy(number):
    return sum(value * value for value in range(number))


def main():
    global caught
    signal.signal(signal.SIGALRM, on_alarm)
    ready()
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.003)
            while True:
                assert heavy(50) == 40425
        except Alarm:
            caught += 1
    assert raised == caught > 10, (raised, caught)
    success()


main()
