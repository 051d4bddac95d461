"""audited.py: works until SIGTERM, a line now and then, and notes whether it was asked to run a file (PEP 768)."""

import sys
import time

from common import ready, success, until_sigterm

is_ended, asked = until_sigterm(), []


def work(number):
    return sum(range(number))


def note(event, arguments):
    if event == "cpython.remote_debugger_script":
        asked.append(arguments[0])


def main():
    sys.addaudithook(note)
    ready()
    said = time.monotonic()
    while not is_ended():
        assert work(100) == 4950
        if time.monotonic() > said + 0.05:
            said = time.monotonic()
            print("works", flush=True)
    print(sorted(set(asked)))
    success()


main()
