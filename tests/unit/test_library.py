"""The library: finding profiles, and that what the library says about BLAS and OpenSSL is true."""

import itertools
import random
import struct
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from radium.core.regs import INTEGER_ARGUMENTS, Registers
from radium.errors import ProfileError, RemoteFault
from radium.profiles import library

BLAS = library.open_profile("blas")
LEVEL3 = ("gemm", "symm", "hemm", "syrk", "herk", "syr2k", "her2k", "trmm", "trsm")
COMPLEX_ONLY = ("hemm", "herk", "her2k")


def test_names():
    """The library lists its profiles, sorted, without their suffix."""
    assert library.names() == sorted(library.names())
    assert {"blas", "numpy", "openssl-kdf", "scikit-learn", "scipy", "torch"} <= set(library.names())


@pytest.mark.parametrize("name", library.names())
def test_every_profile_of_the_library_is_sound(name):
    """A library profile can be loaded, is called as its file and has a title."""
    profile = library.open_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.splits


def test_paths_and_names(tmp_path, monkeypatch):
    """A slash, the suffix or a file that is there make a path; anything else is a name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("")
    assert [library.find(text) for text in ("./blas", "a.toml", "here")] == [Path("blas"), Path("a.toml"), Path("here")]
    assert library.find("blas").name == "blas.toml"


@pytest.mark.parametrize(
    ("name", "hint"), [("blass", "did you mean blas?"), ("openssl", "openssl-kdf"), ("", "a file"), ("\0", "a file")]
)
def test_unknown_name(name, hint):
    """An unknown name is refused with the nearest names and the way to see them all."""
    with pytest.raises(ProfileError) as caught:
        library.find(name)
    assert hint in str(caught.value)
    assert "`radium profiles list`" in str(caught.value)


# --- which symbols the blas profile names --------------------------------------------------------------------------


def splits_of(symbol, file):
    return [
        split
        for split in BLAS.splits
        if fnmatchcase(file, split.library) and any(fnmatchcase(symbol, pattern.pattern) for pattern in split.functions)
    ]


def level3(prefix, middle, suffix):
    for family in LEVEL3:
        for letter in "cz" if family in COMPLEX_ONLY else "sdcz":
            yield f"{prefix}{letter}{family}{middle}{suffix}"


@pytest.mark.parametrize(
    ("file", "prefix", "suffix"),
    [
        ("libblas.so.3", "", ""), ("libopenblas.so.0", "", ""), ("libopenblasp-r0.3.21.so", "", ""),
        ("libscipy_openblas-6cdc3b4a.so", "scipy_", ""), ("libscipy_openblas64_-32a4b2a6.so", "scipy_", "64_"),
        ("libopenblas64_p-r0-0cf96a72.3.23.dev.so", "", "64_"),
    ],
)  # fmt: skip
def test_every_level3_symbol_is_in_one_split(file, prefix, suffix):
    """Each level 3 routine of each naming habit is in exactly one split, with the integers of its library."""
    for symbol in [*level3(f"{prefix}cblas_", "", suffix), *level3(prefix, "_", suffix)]:
        splits = splits_of(symbol, file)
        assert len(splits) == 1, symbol
        leading = splits[0].signature.type_of("ldb" if "ldb" in splits[0].signature.names else "lda")
        assert getattr(leading, "to", leading).size == (8 if suffix else 4), symbol


@pytest.mark.parametrize(("package", "suffix"), [("numpy", "64_"), ("scipy", "")])
def test_symbols_of_the_wheels(package, suffix):
    """The OpenBLAS inside the installed wheel exports what the profile names."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    module = pytest.importorskip(package)
    libraries = [*(Path(module.__file__).parents[1] / f"{package}.libs").glob("*openblas*.so*")]
    if not libraries:
        pytest.skip(f"{package} comes without an OpenBLAS of its own")
    with libraries[0].open("rb") as file:
        exported = {symbol.name for symbol in elffile.ELFFile(file).get_section_by_name(".dynsym").iter_symbols()}
    prefix = "scipy_" if f"scipy_cblas_dgemm{suffix}" in exported else ""
    wanted = {*level3(f"{prefix}cblas_", "", suffix), *level3(prefix, "_", suffix)}
    assert wanted <= exported
    assert all(splits_of(symbol, libraries[0].name) for symbol in wanted)


# --- what the blas profile says about memory -----------------------------------------------------------------------
# An independent account of the routines: their C prototypes, and the elements that each one touches.

MATRIX = {"a": 0x10000000, "b": 0x20000000, "c": 0x30000000}
ELEMENT_NBYTES = {"s": 4, "d": 8, "c": 8, "z": 16}


class Routine:
    """A level 3 routine by its symbol, for example scipy_cblas_zher2k64_."""

    def __init__(self, symbol):
        self.is_cblas = "cblas_" in symbol
        self.integer_nbytes = 8 if "64" in symbol else 4
        core = symbol.removeprefix("scipy_").removeprefix("cblas_").replace("64", "").rstrip("_").removesuffix("3m")
        self.letter, self.family = core[0], core[1:]

    def prototype(self):
        """(name, kind) of each argument; kind is letter, integer, scalar (alpha, beta) or matrix."""
        letters = {
            "gemm": "transa transb", "symm": "side uplo", "hemm": "side uplo", "trmm": "side uplo trans diag",
            "trsm": "side uplo trans diag",
        }.get(self.family, "uplo trans").split()  # fmt: skip
        by_family = {"gemm": "m n k", "symm": "m n", "hemm": "m n", "trmm": "m n", "trsm": "m n"}
        sizes = by_family.get(self.family, "n k").split()
        matrices = {"trmm": "a b", "trsm": "a b", "syrk": "a . c", "herk": "a . c"}.get(self.family, "a b . c").split()
        yield from [("order", "letter")] * self.is_cblas
        yield from ((name, "letter") for name in letters)
        yield from ((name, "integer") for name in sizes)
        yield "alpha", "scalar"
        for name in matrices:
            if name == ".":
                yield "beta", "scalar"
            else:
                yield name, "matrix"
                yield f"ld{name}", "integer"

    def scalar_is_real(self, name):
        return self.letter in "sd" or self.family == "herk" or (self.family == "her2k" and name == "beta")

    def touched(self, args):
        """Offsets in bytes just behind the last element that the routine may touch, by matrix."""
        m, n, k = args.get("m", 0), args["n"], args.get("k", 0)
        trans = args.get("trans") != "N"
        if self.family == "gemm":
            shapes = {
                "a": (k, m) if args["transa"] != "N" else (m, k),
                "b": (n, k) if args["transb"] != "N" else (k, n),
                "c": (m, n),
            }
        elif self.family in ("symm", "hemm", "trmm", "trsm"):
            order = m if args["side"] == "L" else n
            shapes = {"a": (order, order), "b": (m, n), "c": (m, n)}
        else:
            shapes = {"a": (k, n) if trans else (n, k), "b": (k, n) if trans else (n, k), "c": (n, n)}
        triangle = "a" if "side" in args else "c"
        by_rows = args.get("order") == "R"
        for name, (nrows, ncolumns) in shapes.items():
            ld = args.get(f"ld{name}")
            if ld is None:
                continue
            half = args.get("uplo") if name == triangle else None
            elements = [
                i * ld + j if by_rows else i + j * ld
                for i in range(nrows)
                for j in range(ncolumns)
                if half is None or (i <= j if half == "U" else i >= j)
            ]
            assert min(elements) == 0
            yield name, (max(elements) + 1) * ELEMENT_NBYTES[self.letter]


CODES = {
    "order": {"R": 101, "C": 102},
    "side": {"L": 141, "R": 142},
    "uplo": {"U": 121, "L": 122},
    "diag": {"N": 131, "U": 132},
}
TRANS = {"N": 111, "T": 112, "C": 113}


class Call:
    """A thread at a routine's entry, with undefined bits set wherever the ABI leaves them undefined."""

    def __init__(self, routine, args):
        self.memory = {}
        self.regs = Registers(*[0] * 27)
        self.regs.rsp = 0x7000
        integers, self.nfloats, offset, box = list(INTEGER_ARGUMENTS), 0, 8, 0x100
        for name, kind in routine.prototype():
            if kind == "scalar" and routine.is_cblas and routine.scalar_is_real(name) and self.nfloats < 8:
                self.nfloats += 1
                continue
            word = self.word(routine, name, kind, args, box)
            box += 16
            if integers:
                setattr(self.regs, integers.pop(0), word)
            else:
                self.put(0x7000 + offset, struct.pack("<Q", word))
                offset += 8

    def word(self, routine, name, kind, args, box):
        garbage = 0xDEADBEEF << 32
        if kind == "matrix":
            return MATRIX[name]
        if kind == "scalar":
            return box
        if kind == "letter" and routine.is_cblas:
            return CODES.get(name, TRANS)[args[name]] | garbage
        if kind == "integer" and routine.is_cblas:
            return args[name] | (garbage if routine.integer_nbytes == 4 else 0)
        if kind == "letter":
            self.put(box, random.choice([args[name], args[name].lower()]).encode())
        else:
            self.put(box, args[name].to_bytes(routine.integer_nbytes, "little"))
        return box

    def put(self, address, raw):
        self.memory.update((address + i, byte) for i, byte in enumerate(raw))

    def read(self, address, nbytes):
        try:
            return bytes(self.memory[address + i] for i in range(nbytes))
        except KeyError:
            raise RemoteFault(f"nothing at {address:#x}") from None

    def bind(self, signature):
        return signature.bind(self.regs, lambda i: bytes(16), self.read)


def some_calls(routine):
    letters = [name for name, kind in routine.prototype() if kind == "letter"]
    for choice in itertools.product(*[CODES.get(name, TRANS) for name in letters]):
        args = dict(zip(letters, choice, strict=True))
        args |= {name: random.randint(1, 6) for name in "mnk"}
        args |= {f"ld{name}": random.randint(6, 9) for name in "abc"}
        names = {name for name, _ in routine.prototype()}
        yield {name: value for name, value in args.items() if name in names}


@pytest.mark.parametrize(
    "symbol", [pattern.pattern for split in BLAS.splits for pattern in split.functions if pattern.version is None]
)
def test_memory_hints_are_the_touched_extents(symbol):
    """For every routine, letter and storage order the hints begin at the matrices and end behind the last element."""
    random.seed(symbol)
    routine = Routine(symbol)
    (split,) = splits_of(symbol, "libblas.so")
    for args in some_calls(routine):
        bound = Call(routine, args).bind(split.signature)
        hinted = {hint.at.evaluate(bound): hint.nbytes.evaluate(bound) for hint in split.memory}
        assert hinted == {MATRIX[name]: end for name, end in routine.touched(args)}, args


@pytest.mark.parametrize("symbol", ["cblas_dgemm", "dgemm_", "scipy_cblas_zherk64_", "strsm_", "cblas_csymm"])
def test_guards_follow_the_size(symbol):
    """A guard lets large calls through and small ones not."""
    routine = Routine(symbol)
    (split,) = splits_of(symbol, "libblas.so")
    args = next(some_calls(routine))
    for size, passes in ((16, False), (512, True)):
        large = args | {name: size for name in "mnk" if name in args}
        assert split.guard.evaluate(Call(routine, large).bind(split.signature)) is passes


def test_openssl_guards():
    """Few iterations stay at home, and so does a scrypt that only checks its parameters."""
    pbkdf2, scrypt = library.open_profile("openssl-kdf").splits
    names = dict.fromkeys(pbkdf2.signature.names, 1)
    assert not pbkdf2.guard.evaluate(names | {"iter": 1000})
    assert pbkdf2.guard.evaluate(names | {"iter": 600000})
    names = dict.fromkeys(scrypt.signature.names, 1)
    assert scrypt.guard.evaluate(names | {"N": 2**15, "r": 8})
    assert not scrypt.guard.evaluate(names | {"N": 2**15, "r": 8, "key": 0})
