"""NumPy, SciPy, scikit-learn and PyTorch, split at their Python functions by profiles of the tests and of the library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TARGETS, remote_total

from radium.profiles import library

PYTHON = TARGETS / "python"
TORCH = "2.13.0"


@pytest.fixture
def same(work):
    """same(name, *arguments, more=()): the program of tests/targets/python, whole and split by its profile."""

    def run(name, *arguments, more=(), python=sys.executable, timeout_s=60):
        program = [python, PYTHON / f"{name}.py", *arguments]
        return work.same(program, PYTHON / f"{name}.toml", *more, timeout_s=timeout_s)

    return run


def check_names(stderr, nwanted):
    """All names of a profile were found, and all of what they name was split."""
    wrong = [line for line in stderr.splitlines() if re.search(r"names nothing|is not split|are not (split|found)", line)]
    assert not wrong
    told = re.findall(r"(\d+) functions? (?:is|are) split", stderr)
    assert told and int(told[-1]) == nwanted


@pytest.mark.parametrize(
    "name", ["numpy", pytest.param("scikit-learn", marks=pytest.mark.slow), pytest.param("scipy", marks=pytest.mark.slow)]
)
def test_every_name_of_a_library_profile_is_there(work, name):
    """What a library profile names is there in the current version, and its guards are over parameters that there are."""
    names = [text for split in library.open_profile(name).splits for text in split.python]
    modules = sorted({text.partition(":")[0] for text in names})
    split = work.run_split([sys.executable, PYTHON / "imports.py", *modules], name)
    assert split.exit == 0 and split.stdout.endswith("EXIT-SUCCESS"), split.stderr
    check_names(split.stderr, len(names))


def test_clusters_and_linear_algebra(same):
    """KMeans.fit and the whole of numpy.linalg in one profile: every function is remote and gives the same bits."""
    split = same("clusters")
    assert split.remote("KMeans.fit") == 2 and split.reasons("KMeans.fit") == {"guard": 1}
    linalg = {one["name"]: one["calls"]["remote"] for one in split.report["splits"] if ":numpy.linalg:" in one["name"]}
    assert len(linalg) > 25 and all(linalg.values()), linalg


@pytest.mark.slow
def test_random_forest(same):
    """A forest that is fitted on the acceptor is the same one, and predicts the same at either place."""
    split = same("forest")
    assert split.remote("RandomForestClassifier.fit") == split.remote("RandomForestClassifier.predict") == 2
    assert split.remote("RandomForestClassifier.predict_proba") == 2


def test_callables_of_all_kinds(same):
    """Dispatchers, ufuncs, C functions and an operator are split where they are called, errors included."""
    split = same("kinds")
    names = ("matmul", "dot", "sort", "einsum", "exp", "hypot", "sqrt", "fsum", "compress", "crc32")
    assert {name: split.local(name) for name in names} == dict.fromkeys(names, 0)
    assert split.remote("matmul") == split.remote("dot") == split.remote("exp") == 6
    assert split.remote("sort") == split.remote("einsum") == split.remote("hypot") == 3
    # NumPy's imports take roots, too.
    assert split.remote("sqrt") >= 15 and split.remote("fsum") == split.remote("compress") == split.remote("crc32") == 3


def test_native_split_inside_a_python_split(same):
    """A BLAS call inside a remote Python call is part of it; by itself it is a call of its own."""
    split = same("inner", more=("--split", "blas"))
    assert split.remote("tensordot") == 3
    dgemm = [one["calls"] for one in split.report["splits"] if "dgemm" in one["name"] and any(one["calls"].values())]
    assert dgemm == [{"remote": 3, "local": 0}]


@pytest.mark.slow
def test_library_profiles(work):
    """The profiles of NumPy and scikit-learn, as they come: large calls leave, small ones stay by their guards."""
    split = work.same([sys.executable, PYTHON / "large.py"], "numpy", "--split", "scikit-learn", timeout_s=60)
    told = {one["name"]: one for one in split.report["splits"]}
    for name in (
        "numpy:matmul", "numpy:einsum", "numpy.linalg:svd", "sklearn.cluster._kmeans:KMeans.fit",
        "sklearn.neighbors._classification:KNeighborsClassifier.predict",
    ):  # fmt: skip
        one = told[f"python:{name}"]
        assert one["calls"]["remote"] == 1 and one["local_reasons"].keys() == {"guard"}, one


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["LinearRegression", "KNeighborsClassifier", "DecisionTreeClassifier"])
def test_estimator_checks(same, estimator):
    """scikit-learn's own checks find nothing wrong with an estimator whose fit and predict are remote."""
    split = same("checks", estimator, timeout_s=300)
    assert split.remote(f"{estimator}.fit") > 50 and split.remote(f"{estimator}.predict") > 50
    assert split.local(f"{estimator}.fit") == split.local(f"{estimator}.predict") == 0


@pytest.fixture(scope="module")
def torch_python(tmp_path_factory):
    """The interpreter of a new virtual environment with PyTorch."""
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"torch=={TORCH}", "numpy"], check=True, timeout=1800)
    return python


@pytest.mark.slow
def test_torch(work, torch_python, tmp_path):
    """A model's forward, backward and steps by the library's profile: the same bits, and every forward remote.

    Not weighed: on this machine nothing is gained by it.
    """
    always = tmp_path / "torch.toml"
    always.write_text(Path(library.open_profile("torch").path).read_text().replace('policy = "auto"', 'policy = "always"'))
    split = work.same([torch_python, TARGETS / "torchmodel.py", 4], always, timeout_s=300)
    assert split.remote("Module.__call__") == 4 and remote_total(split.report) > 4
    names = [text for one in library.open_profile("torch").splits for text in one.python]
    check_names(split.stderr, len(names))
