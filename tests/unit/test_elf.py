"""ELF images: what they say against pyelftools' own reading, and that damage is refused in one line."""

import io
import struct
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radium.core.elf import ElfImage
from radium.errors import NotPossible

SOURCES = Path(__file__).parents[1] / "targets" / "symbols"


def compile_c(source: str, output: Path, *flags: str) -> bytes:
    subprocess.run(["gcc", "-O1", "-o", output, SOURCES / source, *flags], check=True)
    return output.read_bytes()


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> bytes:
    script = f"-Wl,--version-script={SOURCES / 'lib.map'}"
    output = tmp_path_factory.mktemp("elf") / "lib.so"
    return compile_c("lib.c", output, "-shared", "-fPIC", "-DVERSIONS", script, "-Wl,-soname,libsym.so.1")


def without_sections(data: bytes) -> bytes:
    """The image as a tool like sstrip leaves it: e_shoff, e_shentsize, e_shnum and e_shstrndx are zero."""
    return data[:0x28] + bytes(8) + data[0x30:0x3A] + bytes(6) + data[0x40:]


def summary(image: ElfImage) -> set[tuple]:
    return {(one.name, one.version, one.default_version, one.value, one.kind) for one in image.exported}


def exported_by_pyelftools(data: bytes) -> set[tuple[str, int, int]]:
    table = ELFFile(io.BytesIO(data)).get_section_by_name(".dynsym")
    return {
        (one.name, one["st_value"], one["st_size"])
        for one in table.iter_symbols()
        if one["st_info"]["type"] in ("STT_FUNC", "STT_LOOS") and one["st_shndx"] != "SHN_UNDEF"
    }


@pytest.mark.parametrize("path", ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/bin/bash"])
def test_agrees_with_pyelftools(path):
    """The exported functions of real, stripped files are those that pyelftools finds one by one."""
    data = Path(path).read_bytes()
    image = ElfImage.parse(data, path)
    assert {(one.name, one.value, one.size) for one in image.functions} == exported_by_pyelftools(data)
    assert image.entry == ELFFile(io.BytesIO(data)).header["e_entry"] and not image.is_static


def test_kinds_and_reach(library):
    """Each function is told as exported, hidden or static, indirect or not, with its version."""
    image = ElfImage.parse(library, "lib.so")
    by_name = {(one.name, one.version): one for one in image.functions}
    assert image.soname == "libsym.so.1" and image.kind == "DYN"
    assert by_name["lib_versioned", "NEW_2"].default_version and not by_name["lib_versioned", "OLD_1"].default_version
    assert not by_name["lib_only_old", "OLD_1"].default_version
    assert by_name["lib_chosen", "OLD_1"].kind == "ifunc" and by_name["lib_add", "OLD_1"].kind == "func"
    assert by_name["lib_protected", "OLD_1"].exported and by_name["lib_weak", "OLD_1"].exported
    assert not by_name["lib_hidden", None].exported and by_name["lib_static", None].reach == "static"
    value = by_name["lib_add", "OLD_1"].value
    assert {one.name for one in image.exported_by_value[value]} == {"lib_add", "lib_add_alias"}


def test_names_that_are_no_functions(library):
    """A data object and an import are told apart from a name that is not there."""
    image = ElfImage.parse(library, "lib.so")
    assert image.why_not_function("lib_table") == "a data object"
    assert image.why_not_function("lib_thread_local") == "a thread-local data object"
    assert image.why_not_function("lib_tab") is None
    assert "another object" in ElfImage.parse(Path("/bin/bash").read_bytes(), "bash").why_not_function("malloc")


@pytest.mark.parametrize("hash_style", ["sysv", "gnu"])
def test_without_section_headers(tmp_path, hash_style):
    """The dynamic section alone gives the same exported functions, whichever hash table counts them."""
    data = compile_c("lib.c", tmp_path / "lib.so", "-shared", "-fPIC", "-s", f"-Wl,--hash-style={hash_style}")
    assert summary(ElfImage.parse(without_sections(data), "lib.so")) == summary(ElfImage.parse(data, "lib.so")) != set()


def test_static_programs(tmp_path):
    """A statically linked program, movable or not, is known as one, and its .symtab is used."""
    for flag, kind in (("-static", "EXEC"), ("-static-pie", "DYN")):
        image = ElfImage.parse(compile_c("static.c", tmp_path / "static", flag), "static")
        assert image.is_static and image.kind == kind
        assert image.exported_by_name["main_function"][0].kind == "func"
        assert image.exported_by_name["main_chosen"][0].value in image.irelative


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no ELF file"),
        (b"#!/bin/sh\n", "no ELF file"),
        (b"\x7fELF\x01\x01\x01" + bytes(60), "32-bit"),
        (b"\x7fELF\x02\x02\x01" + bytes(60), "bad ELF header"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 183, 1) + bytes(40), "aarch64"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 1, 62, 1) + bytes(40), "neither a program nor"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, 62, 1) + bytes(40), "program headers"),
        (b"\x7fELF\x02\x01\x01", "bad ELF header"),
    ],
)
def test_what_is_refused(data, words):
    """What radium cannot split is refused by name, in one line."""
    with pytest.raises(NotPossible, match=words) as caught:
        ElfImage.parse(data, "thing.so")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("thing.so: ")


def read_everything(data: bytes) -> None:
    image = ElfImage.parse(data, "damaged.so")
    assert image.is_static in (True, False)
    assert all(isinstance(one.name, str) for one in image.functions) and len(image.exported) <= len(image.functions)
    assert image.why_not_function("lib_nowhere") is None
    assert len(image.references) + len(image.irelative) >= 0


def interesting_offsets(data: bytes) -> list[int]:
    """Starts of the words of all headers, and of every table that the dynamic section names."""
    file = ELFFile(io.BytesIO(data))
    parts = [(0, 64), (file["e_phoff"], 56 * file["e_phnum"]), (file["e_shoff"], 64 * file["e_shnum"])]
    names = "dynamic dynsym gnu.version gnu.version_d gnu.version_r gnu.hash rela.dyn symtab"
    found = [file.get_section_by_name(f".{name}") for name in names.split()]
    parts += [(one["sh_offset"], one["sh_size"]) for one in found if one]
    return [offset for start, nbytes in parts for offset in range(start, start + nbytes, 4)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data())
def test_damage_is_refused_and_never_slow(library, choices):
    """A damaged image is read or refused by NotPossible, within a second, whatever was overwritten or cut off."""
    data = bytearray(without_sections(library) if choices.draw(st.booleans()) else library)
    offset = st.sampled_from(interesting_offsets(library))
    value = st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1), st.sampled_from([2**31, 2**32 - 1, len(library)]))
    for at, word in choices.draw(st.lists(st.tuples(offset, value), min_size=1, max_size=6)):
        data[at : at + 4] = struct.pack("<I", word)
    end = choices.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    started = time.monotonic()
    try:
        read_everything(bytes(data[:end]))
    except NotPossible as error:
        assert "\n" not in str(error)
    assert time.monotonic() - started < 1
