"""interpreters.py WHEN HOW: calls a function in the main interpreter, in another, made before READY or after it, and again.

In the other it waits for a byte on stdin: it sleeps or is busy.
"""

import inspect
import sys

from common import ready, success

try:
    from _interpreters import create, destroy
    from _interpreters import exec as run
except ImportError:  # before 3.13
    from _xxsubinterpreters import create, destroy
    from _xxsubinterpreters import run_string as run

INSIDE = """
import json, os, time
print([heavy(number) for number in range(20)], json.dumps([20]))
print("INSIDE", flush=True)
if "TARGET_HOLD" in os.environ and how == "sleeps":
    os.read(0, 1)
elif "TARGET_HOLD" in os.environ:
    os.set_blocking(0, False)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        heavy(1000)
        try:
            os.read(0, 1)
        except BlockingIOError:
            continue
        break
print([heavy(number) for number in range(20)])
"""


def heavy(number):
    return sum(value * value for value in range(number))


def main():
    when, how = sys.argv[1:]
    other = create() if when == "before" else None
    ready()
    print([heavy(number) for number in range(20)])
    if other is None:
        other = create()
    assert run(other, f"{inspect.getsource(heavy)}\nhow = {how!r}\n{INSIDE}") is None
    print([heavy(number) for number in range(20)])
    destroy(other)
    success()


main()
