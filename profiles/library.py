"""The library of profiles that come with radium, and how a name or a path on the command line becomes a profile."""

import difflib
import importlib.resources
from pathlib import Path

from radium.errors import ProfileError
from radium.profiles.schema import Profile, load

SUFFIX = ".toml"


def names() -> list[str]:
    """The names of the library's profiles, sorted."""
    return sorted(path.stem for path in _folder().glob(f"*{SUFFIX}"))


def find(name_or_path: str) -> Path:
    """The file of a profile: a path when it contains `/`, ends in .toml or is a file here, else a library name.

    A path is returned as it is, there or not. Raises ProfileError for a name that the library does not have.
    """
    path = Path(name_or_path)
    if "/" in name_or_path or name_or_path.endswith(SUFFIX) or _is_file(path):
        return path
    if name_or_path not in names():
        raise ProfileError(f"no library profile is called `{name_or_path[:100]}`", advice=_advice(name_or_path))
    return _folder() / f"{name_or_path}{SUFFIX}"


def open_profile(name_or_path: str) -> Profile:
    """Find and load. Raises ProfileError."""
    return load(find(name_or_path))


def _folder() -> Path:
    return Path(str(importlib.resources.files("radium.profiles")))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _advice(name: str) -> str:
    near = difflib.get_close_matches(name, names(), cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}`radium profiles list` shows all of them; a file is given by its path"
