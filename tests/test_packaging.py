"""What is tested is what users get: the installed package, whole, with its command."""

import configparser
import importlib
import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))

CONFIG = configparser.ConfigParser()
CONFIG.read(CHECKOUT / "setup.cfg")
PACKAGES = CONFIG["options"]["packages"].split()
FOLDERS = dict(line.split(" = ") for line in CONFIG["options"]["package_dir"].strip().splitlines())


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_come_from_site_packages(package: str) -> None:
    """No test may import the checkout, where `radium.tracer` is missing and a forgotten file would not be noticed."""
    assert Path(importlib.import_module(package).__file__).is_relative_to(SITE_PACKAGES)


@pytest.mark.parametrize("name", ["tracer", "replay", "bpf", "profiles"])
def test_nothing_is_importable_by_its_folder_name(name: str) -> None:
    """Nothing called `tracer` or `replay` lands in anybody's site-packages, nor on the path of the tests."""
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_is_installed(package: str) -> None:
    """A file of a package, be it Python, C or TOML, is installed with the contents that it has in the checkout."""
    sources = [path for path in (CHECKOUT / FOLDERS[package]).iterdir() if path.is_file()]
    home = SITE_PACKAGES / package.replace(".", "/")
    assert [p.name for p in sources if not (home / p.name).exists()] == []
    assert [p.name for p in sources if (home / p.name).read_bytes() != p.read_bytes()] == []


def test_the_command_is_there_and_speaks() -> None:
    """`pip install` gives a `radium` command beside the interpreter that answers --help."""
    command = Path(sys.executable).with_name("radium")
    answer = subprocess.run([command, "--help"], capture_output=True, text=True, check=True, timeout=30)
    assert "attach" in answer.stdout


def test_the_version_is_one() -> None:
    """The installed metadata and `radium.__version__` say the same version."""
    assert importlib.metadata.version("radium") == importlib.import_module("radium").__version__


def test_the_licence_is_installed() -> None:
    """The GPL travels with the package, because python-ptrace, which it imports, is GPL."""
    files = importlib.metadata.files("radium") or []
    assert any(file.name == "LICENSE" for file in files)
