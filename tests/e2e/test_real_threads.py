"""NumPy as it comes: with all the threads of its OpenBLAS, and called from pools of threads and of processes."""

import signal
import sys

import pytest
from harness import READY, TARGETS, remote_total

POOL = [sys.executable, TARGETS / "numpypool.py"]


@pytest.fixture(autouse=True)
def default_threads(work):
    """Nothing in the environment says how many threads to use."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        work.env.pop(name)


@pytest.fixture
def blas_run(tmp_path):
    """The library's profile `blas` with `threads = "run"` in each split."""
    from radium.profiles import library

    text = library.find("blas").read_text()
    path = tmp_path / "blas_run.toml"
    path.write_text(text.replace("[[split]]\n", '[[split]]\nthreads = "run"\n'))
    return path


def local_reasons(report):
    return {reason for split in report["splits"] for reason in split["local_reasons"]}


def test_attached_and_let_go(work):
    """A NumPy program that runs already, attached twice; the products before, meanwhile and after are what they are whole."""
    target = work.popen([sys.executable, TARGETS / "matmul.py", 0, 256])
    target.out.wait_for(READY)
    for _ in range(2):
        session = work.attach(target.pid, "blas")
        target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 4)
        report = session.detach()
        assert remote_total(report) > 0 and local_reasons(report) <= {"guard", "refused:detaching"}
        target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 3)
    target.kill(signal.SIGTERM)
    lines = target.check_success().splitlines()
    whole = work.run_whole([sys.executable, TARGETS / "matmul.py", len(lines) - 2, 256])
    assert whole.stdout.splitlines() == lines


@pytest.mark.parametrize("nworkers", [2, 5])
def test_pool_of_threads(work, nworkers):
    """Several Python threads multiply at the same time; each product comes out as it does whole."""
    split = work.same([*POOL, "threads", nworkers, 4], "blas")
    assert remote_total(split.report) > 0 and local_reasons(split.report) <= {"guard"}


def test_pool_of_threads_that_run(work, blas_run):
    """The others go on at home while calls are away: with BLAS in one thread per caller, calls come home."""
    work.env["OPENBLAS_NUM_THREADS"] = "1"
    split = work.same([*POOL, "threads", 3, 6], blas_run)
    assert remote_total(split.report) > 0 and local_reasons(split.report) <= {"guard", "conflict"}


def test_pool_of_threads_that_run_with_workers(work, blas_run):
    """A call whose helpers go on at home meanwhile cannot end away: it ends at home, with the same result."""
    split = work.same([*POOL, "threads", 2, 3], blas_run)
    assert local_reasons(split.report) <= {"guard", "conflict", "stuck"}


def test_pool_of_threads_attached(work):
    """A pool that is at work already is attached, and let go in the middle of its work."""
    target = work.popen([*POOL, "threads", 3, 0])
    target.out.wait_for("^2 ")
    session = work.attach(target.pid, "blas")
    target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 4)
    report = session.detach()
    target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 2)
    target.kill(signal.SIGTERM)
    lines = target.check_success().splitlines()
    assert work.run_whole([*POOL, "threads", 3, len(lines) - 2]).stdout.splitlines() == lines
    assert remote_total(report) > 0


def test_pool_of_processes(work):
    """Forked workers multiply, and so does their parent: their results are what they are whole, wherever each was computed."""
    split = work.same([*POOL, "processes", 2, 5], "blas")
    assert remote_total(split.report) >= 5
