"""Programs that know nothing of radium: reference BLAS under C, NumPy from PyPI, CPython's zlib, pigz, R, openssl."""

import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from harness import READY, TARGETS, assert_same, remote_total

REFERENCE_BLAS = Path("/usr/lib/x86_64-linux-gnu/blas/libblas.so.3")
SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.fixture
def blas(build):
    if not REFERENCE_BLAS.exists():
        pytest.skip("needs Debian's libblas3")
    return build("blas", link=(str(REFERENCE_BLAS), f"-Wl,-rpath,{REFERENCE_BLAS.parent}"))


def test_reference_blas(blas, work, profile):
    """Debian's reference BLAS under a C program gives the same bits."""
    split = work.same([blas, 120, 4], profile("blas"))
    assert split.remote("dgemm_") == 4 and split.remote("dsyrk_") == 4


def test_reference_blas_by_library_profile(blas, work):
    """The library's profile `blas` splits the same program."""
    split = work.same([blas, 200, 2], "blas")
    assert split.remote("dgemm_") == 2


def test_numpy_run(work, profile):
    """A NumPy program started by radium prints the same bits."""
    split = work.same([sys.executable, TARGETS / "matmul.py", 6, 200], profile("matmul"))
    assert remote_total(split.report) >= 6


def test_numpy_attach_by_library_profile(work):
    """A NumPy program that runs already is attached, its products are remote, and after detach it goes on alike."""
    program = [sys.executable, TARGETS / "matmul.py", 0, 256]
    target = work.popen(program)
    target.out.wait_for(READY)
    target.out.wait_for(r"^3 ")
    session = work.attach(target.pid, "blas")
    target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 8)
    report = session.detach()
    target.out.wait_for(r"^\d+ ", after=len(target.out.seen) + 3)
    target.kill(signal.SIGTERM)
    lines = target.check_success().splitlines()
    assert remote_total(report) > 0
    rounds = len(lines) - 2
    whole = work.run_whole([sys.executable, TARGETS / "matmul.py", rounds, 256])
    assert whole.stdout.splitlines()[1 : rounds + 1] == lines[1 : rounds + 1]


def test_numpy_with_worker_threads(work, profile):
    """OpenBLAS with its own worker threads still gives the same bits, remote or at home."""
    work.env.update(OPENBLAS_NUM_THREADS="2")
    work.same([sys.executable, TARGETS / "matmul.py", 3, 300], profile("matmul"))


def test_zlib_of_cpython(work, profile):
    """CPython's zlib calls deflate of the system's libz; the compressed bytes are the same."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip("needs the system's Python with the system's libz")
    split = work.same([SYSTEM_PYTHON, TARGETS / "zlibs.py"], profile("zlibs"))
    assert split.remote("deflate") >= 9


def test_r_with_debians_blas(work):
    """Matrix products of R, which its libR hands to Debian's BLAS, by the library's profile `blas`."""
    if not shutil.which("Rscript"):
        pytest.skip("needs R (r-base-core)")
    split = work.same(["Rscript", "--vanilla", TARGETS / "products.R"], "blas")
    # Which library that is, Debian's alternatives say; another one may be mapped beside it.
    remote = {name: sum(s["calls"]["remote"] for s in split.report["splits"] if s["name"].endswith(name)) for name in (":dgemm_", ":dsyrk_")}
    assert remote[":dgemm_"] >= 4 and remote[":dsyrk_"] == 1


@pytest.fixture
def text(tmp_path):
    """A file that can be compressed, of more than one of pigz's blocks."""
    generator = random.Random(1)
    path = tmp_path / "text"
    path.write_text("\n".join(" ".join(str(generator.randrange(500)) for _ in range(20)) for _ in range(12000)))
    return path


@pytest.mark.parametrize("options", ["-p 1", "-p 2", "-p 4 -z"])
def test_pigz(work, text, tmp_path, options):
    """pigz, whose threads compress and checksum blocks at the same time, writes the same bytes."""
    if not shutil.which("pigz"):
        pytest.skip("needs pigz")
    profile = tmp_path / "pigz.toml"
    profile.write_text('name = "pigz"\n[[split]]\nlibrary = "libz.so*"\nfunction = ["deflate", "adler32", "crc32"]\n')
    for compressed in ("whole", "split"):
        (tmp_path / compressed).mkdir()
        shutil.copy(text, tmp_path / compressed)
    whole = work.run_whole(["pigz", "--no-time", *options.split(), tmp_path / "whole" / "text"])
    split = work.run_split(["pigz", "--no-time", *options.split(), tmp_path / "split" / "text"], profile)
    assert_same(whole, split)
    (ours,), (theirs,) = (tmp_path / "split").iterdir(), (tmp_path / "whole").iterdir()
    assert ours.name == theirs.name and ours.read_bytes() == theirs.read_bytes()
    assert split.remote("deflate") > 0 and split.remote("adler32" if "-z" in options else "crc32") > 0


def test_pigz_restores(work, text, tmp_path):
    """What pigz compressed whole, pigz unpacks split."""
    if not shutil.which("pigz"):
        pytest.skip("needs pigz")
    profile = tmp_path / "pigz.toml"
    profile.write_text('name = "pigz"\n[[split]]\nlibrary = "libz.so*"\nfunction = "crc32"\n')
    assert work.run_whole(["pigz", "--keep", text]).exit == 0
    split = work.same(["pigz", "--decompress", "--stdout", f"{text}.gz"], profile)
    assert split.remote("crc32") > 0


@pytest.fixture
def openssl():
    found = shutil.which("openssl")
    if not found:
        pytest.skip("needs openssl")
    return found


@pytest.mark.parametrize("which", ["target", "library"])
def test_openssl_key_derivation(work, profile, openssl, tmp_path, which):
    """`openssl enc -pbkdf2` derives the same key and writes the same bytes."""
    (tmp_path / "plain").write_bytes(b"radium" * 1000)
    options = "enc -aes-256-cbc -pbkdf2 -iter 20000 -S 0011223344556677 -k secret -base64 -in plain".split()
    split = work.same([openssl, *options], profile("openssl") if which == "target" else "openssl-kdf")
    assert split.remote("PKCS5_PBKDF2_HMAC") == 1


def test_openssl_scrypt(work, profile, openssl):
    """scrypt, which allocates and fills megabytes inside the call, derives the same key."""
    options = "kdf -keylen 32 -kdfopt pass:secret -kdfopt salt:NaCl -kdfopt n:1024 -kdfopt r:8 -kdfopt p:1 SCRYPT"
    work.same([openssl, *options.split()], profile("openssl"))
