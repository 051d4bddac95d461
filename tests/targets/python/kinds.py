"""Callables of all kinds that Python code has: NumPy's dispatchers and ufuncs, functions of C modules, an operator."""

import hashlib
import math
import zlib

import numpy as np


def show(name, array):
    print(name, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16], flush=True)


def main():
    generator = np.random.default_rng(3)
    print("READY", flush=True)
    for _ in range(3):
        left, right = generator.random((120, 120)), generator.random((120, 120))
        product = left @ right
        assert np.allclose(product, np.einsum("ij,jk->ik", left, right))
        show("operator", product)
        left @= right
        show("operator in place", left)
        show("dispatcher", np.dot(left, right))
        show("dispatcher, by name", np.sort(a=right, axis=0))
        show("ufunc", np.exp(right))
        show("ufunc, out", np.exp(right, out=right))
        show("ufunc's method", np.exp.at(right, [0]) or right)
        show("ufunc of two", np.hypot(left, right, where=left > 0, out=np.zeros_like(left)))
        roots = [math.sqrt(number) for number in range(4)]
        assert roots[1] == 1.0
        print("C function", roots, math.fsum(right[0].tolist()))
        packed = zlib.compress(right.tobytes())
        assert zlib.decompress(packed) == right.tobytes()
        print("C function that lets the GIL go", len(packed), zlib.crc32(packed))
        try:
            math.sqrt(-1)
        except ValueError as error:
            print("ValueError", error)
        try:
            np.dot(left, right[:5])
        except ValueError as error:
            print("ValueError", error)
    print("EXIT-SUCCESS", flush=True)


main()
