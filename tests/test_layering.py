"""The architecture, held: imports point down only, and waiting for processes happens in few places.

Reads the checkout by ast and imports nothing of radium.
"""

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# From the ground up; units of one layer do not import each other. A unit is the first name below `radium`.
LAYERS = [
    {"errors"},
    {"core", "files"},
    {"linux"},
    {"bpf", "profiles", "channel", "report", "dirty"},
    {"live"},
    {"tracer", "replay"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {unit: height for height, layer in enumerate(LAYERS) for unit in layer}

# The only files that may wait for a process, and for which: the tracee's threads, those that are stopped for a sample,
# the mirror, the acceptor's sessions, the probes of doctor.
MAY_WAIT = {"tracer/stops.py", "tracer/discovery/sources.py", "replay/vessel.py", "replay/server.py", "radium/commands/doctor.py"}
WAIT_CALLS = {"waitpid", "waitid", "wait3", "wait4"}


def package_folders() -> dict[str, Path]:
    """The packages of setup.cfg: import name -> folder."""
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg")
    folders = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    return {name: CHECKOUT / folders[name] for name in config["options"]["packages"].split()}


PACKAGES = package_folders()
MODULES = {
    f"{package}.{path.stem}" if path.stem != "__init__" else package: path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.glob("*.py"))
}


def unit_of(module: str) -> str:
    """`radium.core.addr` -> `core`; `radium` itself -> the empty string, which everybody may import."""
    return module.split(".")[1] if "." in module else ""


def height(module: str) -> int:
    """The layer's number; what has no layer may import everything and be imported by nothing."""
    return HEIGHT.get(unit_of(module), len(LAYERS))


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, with its leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imported_modules(module: str) -> Iterator[str]:
    """Every module of radium that this one imports anywhere, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            names = (f"{source}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES or name in PACKAGES else source for name in names)


def wrong_edges(module: str) -> list[str]:
    """The imports of a module that do not point down, in words."""
    own = unit_of(module)
    edges = []
    for name in imported_modules(module):
        root = name.split(".")[0]
        if root in {"tracer", "replay", "bpf", "profiles"}:
            edges.append(f"{module} imports {name} bare: say radium.{name}")
        elif root == "radium" and unit_of(name) not in {"", own} and height(name) >= height(module):
            edges.append(f"{module} imports {name}: {own} may import only what lies below it")
    return edges


@pytest.mark.parametrize("module", [name for name in MODULES if name != "radium"])
def test_imports_point_down(module: str) -> None:
    """No module imports from its own layer or from one above it; above all tracer and replay never meet."""
    assert not wrong_edges(module)


def test_every_module_has_a_layer() -> None:
    """A new file directly in radium/ is given its place in the architecture before it is used."""
    assert {unit_of(module) for module in MODULES} - {""} <= HEIGHT.keys()


def test_the_top_package_holds_the_version_and_nothing_else() -> None:
    """Importing radium costs nothing and drags nothing in."""
    assert not list(imported_modules("radium"))


def test_every_source_file_is_packaged() -> None:
    """Every Python file of the checkout's packages lies in a package that setup.cfg lists, so that it is installed."""
    tops = {folder.relative_to(CHECKOUT).parts[0] for folder in PACKAGES.values()}
    files = {path for top in tops for path in (CHECKOUT / top).rglob("*.py") if "__pycache__" not in path.parts}
    assert files == set(MODULES.values())


def waits(path: Path) -> bool:
    """Whether a file calls one of the wait functions, or names one of a module or library."""
    tree = ast.parse(path.read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return bool(WAIT_CALLS & (named | called))


def test_only_the_stop_keepers_wait() -> None:
    """A wait status taken by one place is lost to all others, so each side has one place that takes them."""
    waiting = {str(path.relative_to(CHECKOUT)) for path in MODULES.values() if waits(path)}
    assert waiting <= MAY_WAIT
