"""One large and one small call each of what the library's profiles of NumPy and scikit-learn split."""

import hashlib

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier


def show(name, *arrays):
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    print(name, digest.hexdigest()[:16], flush=True)


def main():
    generator = np.random.default_rng(11)
    print("READY", flush=True)
    for size, nsamples in ((20, 100), (520, 2500)):
        matrix = generator.random((size, size))
        points = generator.random((nsamples, 10))
        sides = points[:, 0] > 0.5
        show("products", matrix @ matrix, np.einsum("ij,jk->ik", matrix, matrix))
        show("svd", *np.linalg.svd(matrix))
        show("clusters", KMeans(3, n_init=1, random_state=0).fit(points).labels_)
        show("neighbours", KNeighborsClassifier().fit(points, sides).predict(points))
    print("EXIT-SUCCESS", flush=True)


main()
