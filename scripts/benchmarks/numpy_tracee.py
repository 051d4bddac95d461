"""The NumPy program that the benchmark splits. It knows nothing of radium: it obeys lines on stdin, times its own
matrix products and answers each line with one JSON line on stdout.

product SIZE N fresh    N products of two matrices that are rewritten before each
product SIZE N keep     N products of which the left matrix stays as it is
spin MS                 looks at the clock for so long and lists the moments at which it stood still: [when, ns]

Example: echo "product 512 3 fresh" | python scripts/benchmarks/numpy_tracee.py
"""

import functools
import hashlib
import json
import sys
import time

import numpy as np

NOTABLE_GAP_NS = 50_000


@functools.cache
def operands(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two matrices to start from, a left operand and room for a right operand; always the same memory for a size."""
    rng = np.random.default_rng(size)
    first, second = rng.standard_normal((2, size, size))
    return first, second, first.copy(), second.copy()


@functools.cache
def result(size: int) -> np.ndarray:
    return np.empty((size, size))


def product(size: int, count: int, what: str) -> dict[str, object]:
    """Nanoseconds of each product, and a SHA-256 over the result of the last."""
    first, second, left, right = operands(size)
    out = result(size)
    durations = []
    for number in range(count):
        if what == "fresh":
            np.multiply(first, 1 + number, out=left)
        np.multiply(second, 1 + number, out=right)
        start = time.perf_counter_ns()
        np.matmul(left, right, out=out)
        durations.append(time.perf_counter_ns() - start)
    return {"ns": durations, "sha256": hashlib.sha256(out.data).hexdigest()}


def spin(ms: int) -> dict[str, object]:
    clock = time.monotonic_ns
    gaps = []
    largest = 0
    before = clock()
    end = before + ms * 1_000_000
    while before < end:
        now = clock()
        largest = max(largest, now - before)
        if now - before >= NOTABLE_GAP_NS:
            gaps.append([before, now - before])
        before = now
    return {"largest_ns": largest, "gaps": gaps}


def main() -> None:
    for line in sys.stdin:
        match line.split():
            case ["product", size, count, ("fresh" | "keep") as what]:
                answer = product(int(size), int(count), what)
            case ["spin", ms]:
                answer = spin(int(ms))
            case _:
                sys.exit(f"numpy_tracee: no such line: {line!r}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
