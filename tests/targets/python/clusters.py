"""Clusters that are found again, and the whole of numpy.linalg: every function once or twice, checked by what it promises."""

import hashlib

import numpy as np
from numpy import linalg
from sklearn.cluster import KMeans


def show(name, *arrays):
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    print(name, digest.hexdigest()[:16], flush=True)


def cluster(generator):
    centres = 10 * generator.permutation(64).reshape(8, 8)
    owners = generator.integers(8, size=4000)
    points = centres[owners] + generator.normal(size=(4000, 8))
    model = KMeans(8, n_init=3, random_state=0).fit(points)
    for owner in range(8):
        assert len(set(model.labels_[owners == owner])) == 1
    show("KMeans", model.labels_, model.cluster_centers_, model.predict(points[:100]))


def decompose(matrix):
    size = len(matrix)
    symmetric = matrix @ matrix.T + size * np.eye(size)
    right = matrix[:, :3]
    u, s, vt = linalg.svd(matrix)
    assert np.allclose(u * s @ vt, matrix)
    values, vectors = linalg.eigh(symmetric)
    assert np.allclose(symmetric @ vectors, vectors * values)
    q, r = linalg.qr(matrix)
    assert np.allclose(q @ r, matrix)
    lower = linalg.cholesky(symmetric)
    assert np.allclose(lower @ lower.T, symmetric)
    assert np.allclose(matrix @ linalg.solve(matrix, right), right)
    assert np.allclose(matrix @ linalg.inv(matrix), np.eye(size))
    show("pairs", u, s, vt, values, vectors, q, r, lower, *linalg.eig(matrix), *linalg.slogdet(matrix))
    show("solved", *linalg.lstsq(matrix[:, :20], right, rcond=None), linalg.pinv(matrix), linalg.tensorsolve(matrix, right[:, 0]))
    show("numbers", linalg.det(symmetric / size), linalg.cond(matrix), linalg.matrix_rank(right), linalg.norm(matrix), linalg.eigvals(matrix))
    show("products", linalg.multi_dot([matrix, right, right.T]), linalg.matrix_power(matrix / size, 5), linalg.tensordot(matrix, matrix))
    show("symmetric", linalg.eigvalsh(symmetric), linalg.svdvals(matrix), linalg.tensorinv(matrix.reshape(16, 5, 80), ind=2))
    show("rows", linalg.vecdot(matrix, symmetric), linalg.outer(matrix[0], matrix[1]), linalg.cross(matrix[:, :3], right))
    show("norms", linalg.matrix_norm(matrix), linalg.vector_norm(matrix, axis=0), linalg.trace(matrix), linalg.diagonal(matrix))
    show("views", linalg.matmul(matrix, right), linalg.matrix_transpose(matrix))
    for wrong in (np.zeros((3, 3)), np.zeros((2, 3))):
        try:
            linalg.inv(wrong)
        except linalg.LinAlgError as error:
            print("LinAlgError", error)


def main():
    generator = np.random.default_rng(5)
    # So that threadpoolctl has looked at all libraries of the process: once, by a thousand system calls.
    KMeans(2, n_init=1, random_state=0).fit(generator.random((10, 2)))
    print("READY", flush=True)
    for _ in range(2):
        cluster(generator)
        decompose(generator.random((80, 80)))
    print("EXIT-SUCCESS", flush=True)


main()
