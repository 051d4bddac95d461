"""Singular values of one matrix, four times."""

import numpy as np

matrix = np.random.default_rng(1).random((200, 200))
for _ in range(4):
    print(np.linalg.svd(matrix)[1][:3])
