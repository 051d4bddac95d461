"""What a trace may have found in a NumPy and scikit-learn program: values for the tests of what is made from them."""

from radium.core.places import Place
from radium.tracer.discovery.findings import (
    Candidate,
    Findings,
    Link,
    Node,
    Overhead,
    Samples,
    Sized,
    Trial,
)

DGEMM = (
    "void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha, "
    "const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc)"
)


def trial(out, back, here, mirror, way, syscalls=None, threads=1, equal=True, difference=""):
    read, written = out / 4096, back / 4096
    return Trial(8, read, written, out, back, syscalls or {}, threads, here, mirror, way, equal, difference)


def candidates():
    """The four verdicts, ranked."""
    return [
        Candidate(
            "python:sklearn.cluster._kmeans:KMeans.fit", "", "sklearn.cluster._kmeans:KMeans.fit", 0.412, 0.004, 12, 20.0,
            [0] * 28 + [2, 7, 3], 1, {"python:__main__:cluster": 12}, trial(5.2e6, 310e3, 0.68, 0.11, 0.006), 0.68, 0.116,
            0.341, "ready", "", working_set=[Place("libpython3.11.so.1.0", 0x3A0000, 0x8000), Place("stack", -8192, 8192)],
        ),
        Candidate(
            "libblas.so.3:dgemm_", "libblas.so*", "dgemm_", 0.334, 0.329, 1204, 20.0,
            [0] * 14 + [310, 401, 120, 80, 40, 12, 0, 0, 96, 102, 43], 1,
            {"libRblas.so:matprod": 204, "python:scipy.linalg:lstsq": 1000}, trial(3.7e6, 2.1e6, 5.5e-3, 4.1e-4, 2.1e-3),
            5.5e-3, 2.5e-3, 0.175, "with guard", "small calls lose", "m[0] * n[0] * k[0] >= 2**21", "m[0] * n[0] * k[0]",
            2.1e6, [Sized(2.0**i, 2e-9 * 2**i, 1.2e-3 + 2e-10 * 2**i) for i in range(12, 27)], DGEMM,
            [("a", "8 * lda[0] * k[0]"), ("c", "8 * ldc[0] * n[0]")], [Place("libblas.so.3", 0x5000, 4096)],
        ),
        Candidate(
            "libopenblas.so.0:dgetrf_", "libopenblas.so*", "dgetrf_", 0.101, 0.09, 40, 20.0, [0] * 24 + [12, 28], 2,
            {"python:numpy.linalg:solve": 40}, trial(33.5e6, 33.5e6, 0.048, 0.012, 0.054), 0.048, 0.066, -0.037, "not yet",
            "the way takes longer",
        ),
        Candidate(
            "libz.so.1:deflate", "libz.so*", "deflate", 0.062, 0.062, 8800, 20.0, [0] * 15 + [4000, 4800], 1,
            {"python:__main__:store": 8800}, trial(65e3, 20e3, 1.4e-4, 1.4e-4, 3.1e-4), 1.4e-4, 4.5e-4, -0.13, "no",
            "too short",
        ),
        Candidate(
            "python:__main__:report", "", "__main__:report", 0.048, 0.011, 3, 20.0, [0] * 28 + [3], 1, {},
            trial(400e3, 120e3, 0.32, 0.31, 0.4, {"write": 1200.0, "fsync": 3.0}, equal=None), 0.32, 0.71, -0.06, "no",
            "system calls",
        ),
        Candidate("libc.so.6:qsort", "libc.so*", "qsort", 0.021, 0.018, reason="not called while watched"),
    ]  # fmt: skip


def tree():
    kmeans = Node("python:sklearn.cluster._kmeans:KMeans.fit", 824, [
        Node("python:sklearn.cluster._kmeans:lloyd_iter", 810, [
            Node("libblas.so.3:dgemm_", 330), Node("libm.so.6:sqrt", 60), Node("libgomp.so.1:GOMP_parallel", 380),
        ]),
    ])  # fmt: skip
    solve = Node("python:numpy.linalg:solve", 210, [Node("libopenblas.so.0:dgetrf_", 202, [Node("dlaswp", 31)])])
    model = Node("python:__main__:model", 640, [
        solve, Node("python:scipy.linalg:lstsq", 400, [Node("libblas.so.3:dgemm_", 338), Node("libc.so.6:memcpy", 40)]),
    ])  # fmt: skip
    report = Node("python:__main__:report", 96, [Node("libc.so.6:qsort", 42), Node("libc.so.6:write", 31)])
    store = Node("python:__main__:store", 150, [Node("libz.so.1:deflate", 124)])
    return Node("all", 2000, [
        Node("python:__main__:main", 1960, [Node("python:__main__:cluster", 830, [kmeans]), model, report, store]),
        Node("libpython3.11.so.1.0:PyImport_ImportModule", 40),
    ])  # fmt: skip


def findings(**changes):
    """All of it; changes: other values of fields."""
    values = {
        "radium": "0.1.0",
        "program": ["python3", "study.py", "--rounds", "12"],
        "pids": [4711],
        "duration_s": 20.2,
        "samples": Samples("perf events", 99, 2000, 31, 1700),
        "overhead": Overhead(0.012, 0.043, 2.4),
        "link": Link("10.0.0.2:7000", 120e-6, 1.2e9, "measured"),
        "candidates": candidates(),
        "tree": tree(),
        "notes": ["2 threads ended while they were watched"],
    }
    return Findings(**(values | changes))
