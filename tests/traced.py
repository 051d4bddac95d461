"""Stock programs whose time is spent in a function that a person would name, as `radium trace` is to find it."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "targets" / "traced"


class Program(NamedTuple):
    """command: of the folder where its input lies, and of how much it is to do (1: some seconds). expected: how the names of
    the functions end that a person would choose; none: that there is nothing to split."""

    name: str
    command: Callable[[Path, float], list[str]]
    expected: tuple[str, ...]


def _rounds(size: float, of: int) -> str:
    return str(max(1, round(size * of)))


def _query(size: float) -> str:
    last = round(size * 30_000_000)
    return f"with recursive c(x) as (select 1 union all select x + 1 from c where x < {last}) select sum(x * x % 7) from c;"


def text(folder: Path, nbytes: int) -> str:
    """The path of a file of that size that can be compressed."""
    path = folder / f"text{nbytes}"
    if not path.exists():
        generator = random.Random(1)
        words = [generator.randbytes(generator.randrange(2, 9)).hex() for _ in range(5000)]
        piece = " ".join(generator.choice(words) for _ in range(200_000)).encode()
        with path.open("wb") as file:
            for _ in range(nbytes // len(piece) + 1):
                file.write(piece)
    return str(path)


def image(folder: Path, side: int) -> str:
    """The path of a picture (PPM) with so many pixels on each side."""
    path = folder / f"image{side}.ppm"
    if not path.exists():
        path.write_bytes(b"P6 %d %d 255\n" % (side, side) + random.Random(1).randbytes(3 * side * side))
    return str(path)


PROGRAMS = [
    Program("numpy", lambda folder, size: [sys.executable, str(FOLDER / "products.py"), _rounds(size, 250)], ("cblas_dgemm64_",)),
    Program("scikit-learn", lambda folder, size: [sys.executable, str(FOLDER / "fit.py"), _rounds(size, 25)], (".fit",)),
    Program("R", lambda folder, size: ["Rscript", "--vanilla", str(FOLDER / "products.R"), _rounds(size, 150)], (":dgemm_",)),
    Program(
        "openssl",
        lambda folder, size: [
            "openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", _rounds(size, 18_000_000), "-k", "secret",
            "-S", "0011223344556677", "-in", str(FOLDER / "fit.py"),
        ],
        ("PKCS5_PBKDF2_HMAC",),
    ),
    Program("sqlite3", lambda folder, size: ["sqlite3", ":memory:", _query(size)], (":sqlite3_step",)),
    Program(
        "pigz", lambda folder, size: ["pigz", "-9", "-p", "2", "-n", "-c", text(folder, round(size * 400e6))], (":deflate",)
    ),
    Program(
        "convert",
        lambda folder, size: ["convert-im6.q16", image(folder, round(2400 * size**0.5)), "-blur", "0x60", "rgb:-"],
        ("BlurImageChannel", "BlurImage"),
    ),
    Program("gzip", lambda folder, size: ["gzip", "-6", "-n", "-c", text(folder, round(size * 200e6))], ()),
]
