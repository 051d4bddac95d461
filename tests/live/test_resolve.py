"""Split points of real processes, compared with the addresses that the programs print themselves."""

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from radium.errors import NotPossible, TraceeGone
from radium.profiles.schema import FunctionPattern
from radium.tracer import resolve
from radium.tracer.resolve import Resolver

SOURCES = Path(__file__).parents[1] / "targets" / "symbols"
VERSIONED = ("-DVERSIONS", f"-Wl,--version-script={SOURCES / 'lib.map'}")


@dataclass(frozen=True)
class Split:
    """The part of a profile's split that the resolver uses."""

    library: str | None
    functions: tuple[FunctionPattern, ...]
    where: str = "p.toml:3"


def split(library: str, *functions: str) -> Split:
    parts = [name.partition("@") for name in functions]
    return Split(library, tuple(FunctionPattern(name, version or None) for name, _, version in parts))


def compile_c(source: str, output: Path, *flags: str) -> Path:
    output.parent.mkdir(exist_ok=True)
    subprocess.run(["gcc", "-O1", "-o", output, SOURCES / source, *flags], check=True)
    return output


def library(folder: Path, *flags: str, name: str = "libsym.so.1") -> Path:
    return compile_c("lib.c", folder / name, "-shared", "-fPIC", f"-Wl,-soname,{name}", *flags)


def program(folder: Path, *flags: str) -> Path:
    """A program that is linked with folder/libsym.so.1."""
    linking = ("-Wl,--no-as-needed", folder / "libsym.so.1", f"-Wl,-rpath,{folder}")
    return compile_c("prog.c", folder / "prog", *linking, *flags)


class Running:
    """A program that has printed its addresses and READY, and takes commands."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.pid = process.pid
        self.printed = {}
        for line in process.stdout:
            name, value = line.split()
            if name == "READY":
                break
            self.printed[name] = 0 if value == "(nil)" else int(value, 16)

    def command(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def running(*command, **options):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    with process:
        try:
            yield Running(process)
        finally:
            process.kill()


def resolved(pid: int, *splits: Split) -> dict[str, int]:
    points, unresolved = Resolver(pid).resolve(splits)
    assert unresolved == []
    return {point.name: point.address for point in points}


def reasons(pid: int, *splits: Split) -> dict[str, str]:
    """pattern -> why, of splits of which nothing resolves."""
    points, unresolved = Resolver(pid).resolve(splits)
    assert points == [] and all(one.where == "p.toml:3" and "\n" not in one.why for one in unresolved)
    return {one.pattern: one.why for one in unresolved}


@pytest.fixture
def without_map_files(monkeypatch):
    """As if /proc/PID/map_files were not permitted."""
    status = resolve._status
    monkeypatch.setattr(resolve, "_status", lambda path: None if "/map_files/" in path else status(path))


@pytest.mark.parametrize(
    "flags",
    [
        ("-pie", "-fPIE"),
        ("-no-pie", "-fno-pie"),
        ("-pie", "-fPIE", "-Wl,-z,noseparate-code"),
        ("-no-pie", "-fno-pie", "-Wl,-z,noseparate-code", "-Wl,-z,now"),
        ("-pie", "-fPIE", "-Wl,-z,norelro", "-Wl,-z,max-page-size=0x200000"),
    ],
)
@pytest.mark.parametrize("stripped", [False, True])
def test_addresses_are_those_that_the_program_sees(tmp_path, flags, stripped):
    """Functions of the program and of its library resolve to what `&f` and dlsym give, however they are linked.

    An exported IFUNC of a program at a fixed address is its entry in the procedure linkage table: dlsym says so too.
    """
    layout = tuple(flag for flag in flags if flag.startswith("-Wl"))
    library(tmp_path, *layout, *(["-s"] if stripped else []))
    app = program(tmp_path, *flags, *(["-s", "-rdynamic"] if stripped else []))
    with running(app, "lib_add", "lib_protected", "lib_weak", *(["main_chosen"] if stripped else [])) as target:
        found = resolved(
            target.pid,
            split("libsym.so*", "lib_add", "lib_protected", "lib_w*k"),
            split("main", "main_function", "main_chosen"),
        )
        assert found == {
            "libsym.so.1:lib_add": target.printed["lib_add"],
            "libsym.so.1:lib_protected": target.printed["lib_protected"],
            "libsym.so.1:lib_weak": target.printed["lib_weak"],
            "prog:main_function": target.printed["main_function"],
            "prog:main_chosen": target.printed["main_chosen"],
        }


def test_names_of_one_address(tmp_path):
    """Two names of one function are one split point, called by the first pattern's name, and the first split's."""
    library(tmp_path)
    with running(program(tmp_path)) as target:
        first, second = split("libsym.so.1", "lib_add_alias", "lib_add*"), split("*/libsym.so.1", "lib_add")
        points, unresolved = Resolver(target.pid).resolve([first, second])
        assert [(one.name, one.aliases) for one in points] == [("libsym.so.1:lib_add_alias", ("lib_add",))]
        assert points[0].split is first and points[0].object_path == str(tmp_path / "libsym.so.1") and not unresolved


def test_versions(tmp_path):
    """Without a version the default one is meant; any other is found by name@VERSION."""
    library(tmp_path, *VERSIONED)
    app = program(tmp_path)
    with running(app, "lib_versioned", "lib_versioned@OLD_1", "lib_only_old@OLD_1") as target:
        found = resolved(target.pid, split("libsym.so.1", "lib_versioned", "lib_versioned@OLD_1", "lib_only_old@OLD_1"))
        assert found == {f"libsym.so.1:{name}": target.printed[name] for name in target.printed if "lib" in name}
        why = reasons(target.pid, split("libsym.so.1", "lib_only_old", "lib_add@NEW_9"))
        assert "no default version" in why["lib_only_old"] and "lib_only_old@OLD_1" in why["lib_only_old"]
        assert "no version NEW_9" in why["lib_add@NEW_9"] and "lib_add@OLD_1" in why["lib_add@NEW_9"]


def test_indirect_function_of_a_library(tmp_path):
    """An IFUNC resolves to the implementation that the process has chosen, once it has, and says so before that."""
    library(tmp_path)
    with running(program(tmp_path, "-Wl,-z,lazy", "-fplt")) as target:
        resolver = Resolver(target.pid)
        points, unresolved = resolver.resolve([split("libsym.so.1", "lib_chosen")])
        assert points == [] and "chosen none yet" in unresolved[0].why
        assert resolver.resolve_new()[:2] == ([], [])
        assert target.command("call") == "201"
        (point,) = resolver.resolve_new().new
        assert point.name == "libsym.so.1:lib_chosen"
        assert resolver.resolve_new()[:2] == ([], [])


def test_indirect_function_agrees_with_dlsym(tmp_path):
    """With immediate binding the implementation is known at once, and is the one that dlsym returns."""
    library(tmp_path)
    with running(program(tmp_path, "-Wl,-z,now"), "lib_chosen") as target:
        assert resolved(target.pid, split("libsym.so.1", "lib_chosen")) == {
            "libsym.so.1:lib_chosen": target.printed["lib_chosen"]
        }


def test_libc_indirect_functions():
    """The C library's own choice is found by the versions of its references: memcpy of the default version."""
    libc = ctypes.CDLL(None)
    ours = ctypes.cast(libc.memcpy, ctypes.c_void_p).value
    points, _ = Resolver(os.getpid()).resolve([split("libc.so.6", "memcpy", "strlen")])
    assert {one.name: one.address for one in points}["libc.so.6:memcpy"] == ours
    assert len(points) == 2


def test_why_not(tmp_path):
    """Names that lead nowhere say why: nearest names, static, hidden, data, or only used there."""
    library(tmp_path)
    with running(program(tmp_path)) as target:
        why = reasons(
            target.pid,
            split("libsym.so.1", "lib_ad", "lib_static", "lib_table", "lib_thread_local", "zzz", "none_*"),
            split("main", "main_static", "main_hidden", "main_data", "printf", "main_functoin"),
            split("libsmy.so", "lib_add"),
            split("qqqqqqqq", "lib_add"),
        )
        assert why["lib_ad"] == "no function lib_ad in libsym.so.1; nearest: lib_add, lib_weak, lib_add_alias"
        only = "only exported functions can be split"
        assert why["lib_static"] == f"lib_static is a static or hidden function of libsym.so.1: {only}"
        assert why["main_static"] == f"main_static is a static or hidden function of main (prog): {only}"
        assert why["main_hidden"] == f"main_hidden is a static or hidden function of main (prog): {only}"
        assert why["lib_table"] == "lib_table is a data object in libsym.so.1, no function"
        assert why["lib_thread_local"] == "lib_thread_local is a thread-local data object in libsym.so.1, no function"
        assert why["main_data"] == "main_data is a data object in main (prog), no function"
        assert why["printf"] == "printf is a reference to another object's symbol in main (prog), no function"
        assert why["zzz"] == "no function zzz in libsym.so.1" and why["none_*"].startswith("no function none_*")
        assert why["main_functoin"].endswith("; nearest: main_function, main_chosen")
        assert why["libsmy.so"].startswith("no mapped library matches libsmy.so; nearest: libsym.so.1")
        assert why["qqqqqqqq"] == "no mapped library matches qqqqqqqq"


def test_static_program(tmp_path):
    """A static program says that it has no libraries; its own functions can be split while it has symbols."""
    for flag in ("-static", "-static-pie"):
        app = compile_c("static.c", tmp_path / "static", flag)
        with running(app) as target:
            assert resolved(target.pid, split("main", "main_function", "main_chosen")) == {
                f"static:{name}": address for name, address in target.printed.items()
            }
            assert "is a static program: it has no libraries" in reasons(target.pid, split("libc*", "malloc"))["libc*"]
        subprocess.run(["strip", app], check=True)
        with running(app) as target:
            why = reasons(target.pid, split("main", "main_function"))["main_function"]
            assert why == "main (static) is a static program without symbols: nothing of it can be split by name"


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_library_replaced_on_disk(tmp_path, how):
    """The library that is mapped counts, not the one that has taken its path since."""
    mapped = library(tmp_path)
    app = program(tmp_path)
    with running(app, "lib_add") as target:
        if how == "replaced":
            os.replace(library(tmp_path / "new", "-DPADDING"), mapped)
        else:
            mapped.unlink()
        resolver = Resolver(target.pid)
        (point,) = resolver.resolve([split("libsym.so.1", "lib_add")])[0]
        assert point.address == target.printed["lib_add"] and point.object_path == str(mapped)
        assert [one.soname for one in resolver.objects() if one.deleted] == ["libsym.so.1"]


def test_replaced_library_that_cannot_be_read(tmp_path, without_map_files):
    """Without the right to read the mapped file, a path that leads to another file is not taken for it."""
    mapped = library(tmp_path)
    with running(program(tmp_path), "lib_add") as target:
        assert resolved(target.pid, split("libsym.so.1", "lib_add"))["libsym.so.1:lib_add"] == target.printed["lib_add"]
        os.replace(library(tmp_path / "new", "-DPADDING"), mapped)
        assert "deleted or replaced on disk" in reasons(target.pid, split("libsym.so.1", "lib_add"))["libsym.so.1"]


def test_file_that_changes_while_it_is_read(tmp_path):
    """A file that is no longer the one that was opened raises NotPossible instead of mixing two files."""
    path = library(tmp_path)
    file = resolve._LibraryFile(str(path), str(path), os.stat(path))
    os.truncate(path, 100)
    with pytest.raises(NotPossible, match="changed while it was read"):
        file[:64]


def test_process_that_shared_an_image_is_gone(tmp_path):
    """What one process's library was found to be serves the next, also when the first has ended since."""
    library(tmp_path)
    app = program(tmp_path)
    with running(app, "lib_add") as first, running(app, "lib_add") as second:
        resolvers = [Resolver(target.pid) for target in (first, second)]
        assert all(resolver.objects() for resolver in resolvers)
        second.command("quit")
        second.process.wait()
        (point,) = resolvers[0].resolve([split("libsym.so.1", "lib_add")])[0]
        assert point.address == first.printed["lib_add"]


def test_libraries_that_come_and_go(tmp_path):
    """A library opened later gives its split points when asked again, and takes them along when it is closed."""
    library(tmp_path)
    late = library(tmp_path, name="liblate.so.2")
    with running(program(tmp_path)) as target:
        resolver = Resolver(target.pid)
        splits = [split("liblate*", "lib_add", "lib_hidden"), split("main", "main_function")]
        points, unresolved = resolver.resolve(splits)
        assert [one.name for one in points] == ["prog:main_function"] and unresolved[0].pattern == "liblate*"
        address = int(target.command(f"open {late}"), 16)
        new, gone, _ = resolver.resolve_new()
        assert [(one.name, one.address) for one in new] == [("liblate.so.2:lib_add", address)] and gone == []
        assert target.command("close") == "0"
        assert resolver.resolve_new()[:2] == ([], new)
        assert resolver.resolve_new()[:2] == ([], [])
        assert int(target.command(f"open {late}"), 16) == resolver.resolve_new().new[0].address


def test_objects(tmp_path):
    """Objects are the files with code, the vdso not among them; their ranges are those of their own mappings."""
    library(tmp_path)
    with running(program(tmp_path)) as target:
        objects = Resolver(target.pid).objects(Path(f"/proc/{target.pid}/maps").read_bytes())
        libraries = {one.soname for one in objects if not one.is_main}
        assert libraries == {"libsym.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
        assert [one.file_name for one in objects if one.is_main] == ["prog"]
        for one in objects:
            assert one.base == one.ranges[0].start and not one.deleted and set(one.executable) <= set(one.ranges)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
@pytest.mark.parametrize("files", ["map_files", "root"])
def test_another_mount_namespace(tmp_path, files, request):
    """A library is read as its process sees it, not as the same path leads elsewhere in our mount namespace."""
    if files == "root":
        request.getfixturevalue("without_map_files")
    seen = tmp_path / "seen"
    inside = library(tmp_path / "inside", "-DPADDING")
    library(seen)
    app = program(seen)
    shutil.copy(app, inside.parent)
    script = 'mount --bind "$1" "$2" && exec "$2/prog" lib_add'
    command = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", inside.parent, seen)
    with running(*command) as target:
        resolver = Resolver(target.pid)
        (point,) = resolver.resolve([split("libsym.so.1", "lib_add")])[0]
        assert point.address == target.printed["lib_add"]
        assert not any(one.deleted for one in resolver.objects())


def test_numpy_wheel():
    """The BLAS inside a NumPy wheel, found by a glob over its mangled file name, quickly enough to attach."""
    code = (
        "import ctypes, re, numpy\n"
        "path = re.search(r'/\\S*openblas\\S*', open('/proc/self/maps').read())[0]\n"
        "function = ctypes.CDLL(path).scipy_cblas_dgemm64_\n"
        "print('dgemm', hex(ctypes.cast(function, ctypes.c_void_p).value))\n"
        "print('READY 0', flush=True)\n"
        "input()"
    )
    with running(sys.executable, "-c", code) as target:
        points, unresolved = Resolver(target.pid).resolve([split("lib*openblas*", "scipy_cblas_dgemm64_", "*dgem64_")])
        assert [one.address for one in points] == [target.printed["dgemm"]]
        assert "scipy_dgemm_64_" in unresolved[0].why or "nearest" in unresolved[0].why


def test_python_splits_are_left_to_others(tmp_path):
    """A split without a library is none of the resolver's."""
    assert Resolver(os.getpid()).resolve([Split(None, ())]) == ([], [])


def test_process_that_is_gone():
    """A process that has ended is an answer of its own."""
    with running("true") as target:
        target.process.wait()
    with pytest.raises(TraceeGone):
        Resolver(target.pid).resolve([split("main", "main")])
