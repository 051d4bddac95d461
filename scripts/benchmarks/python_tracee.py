"""The Python program that the benchmark splits. It knows nothing of radium: it obeys lines on stdin, times its calls of the
user's code in a module of rivals/ and answers each line with one JSON line on stdout. It says READY first.

WHAT N    N calls of the module's function call_WHAT

Example: echo "loop 3" | PYTHONPATH=scripts/benchmarks/rivals python scripts/benchmarks/python_tracee.py plain
"""

import hashlib
import importlib
import json
import pickle
import sys
import time
from collections.abc import Callable


def call(function: Callable[[], object], count: int) -> dict[str, object]:
    """Nanoseconds of each call, and a SHA-256 over the result of the last."""
    durations = []
    for _ in range(count):
        start = time.perf_counter_ns()
        result = function()
        durations.append(time.perf_counter_ns() - start)
    return {"ns": durations, "sha256": hashlib.sha256(pickle.dumps(result)).hexdigest()}


def main() -> None:
    user_code = importlib.import_module(sys.argv[1])
    print("READY", flush=True)
    for line in sys.stdin:
        what, count = line.split()
        print(json.dumps(call(getattr(user_code, f"call_{what}"), int(count))), flush=True)


if __name__ == "__main__":
    main()
