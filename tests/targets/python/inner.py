"""Matrix products, made by themselves and inside another function of NumPy's."""

import hashlib

import numpy as np


def main():
    generator = np.random.default_rng(9)
    print("READY", flush=True)
    for _ in range(3):
        left, right = generator.random((200, 200)), generator.random((200, 200))
        direct, inside = left @ right, np.tensordot(left, right, axes=1)
        assert np.array_equal(direct, inside)
        print(hashlib.sha256(inside.tobytes()).hexdigest(), flush=True)
    print("EXIT-SUCCESS", flush=True)


main()
