"""PyTorch on the CPU, from PyPI, in an environment of its own."""

import subprocess
import sys

import pytest
from harness import TARGETS, remote_total

VERSION = "2.13.0"


@pytest.fixture(scope="module")
def torch_python(tmp_path_factory):
    """The interpreter of a new virtual environment with PyTorch."""
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", f"torch=={VERSION}", "numpy"]
    subprocess.run(install, check=True, timeout=1800)
    return python


@pytest.mark.slow
@pytest.mark.parametrize("nthreads", ["1", ""])
def test_model(work, profile, torch_python, nthreads):
    """A model that is evaluated and trained: its outputs and weights are the same, with one thread and with all it likes."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        work.env.pop(name)
    if nthreads:
        work.env["OMP_NUM_THREADS"] = nthreads
    split = work.same([torch_python, TARGETS / "torchmodel.py", 4], profile("torchmodel"), timeout_s=300)
    assert remote_total(split.report) > 0
