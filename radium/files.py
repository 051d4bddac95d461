"""Files that users name: written whole, and read back checked. Their failures are one line that names the flag.

Layer: beneath report and all that writes. Imports errors only.
"""

import contextlib
import os
import stat
from typing import TypeVar

import msgspec

from radium.errors import JobFailed, UsageError

Content = TypeVar("Content")


def write(path: str | os.PathLike[str], text: str, what: str, flag: str) -> None:
    """A reader of the file sees the old content or the new one, whole.

    What is not a regular file (a pipe, /dev/null) is written in place. Characters that are not UTF-8 are replaced. what: the
    content, for people; flag: with which it was named. Raises JobFailed.
    """
    try:
        _replace(os.path.realpath(path), text.encode("utf-8", "replace"))
    except OSError as error:
        raise JobFailed(
            f"cannot write {what}: {error.strerror}",
            where=os.fspath(path),
            advice=f"give {flag} a path in a writable folder with room",
        ) from error


def read_json(path: str | os.PathLike[str], type_: type[Content], what: str, advice: str) -> Content:
    """what: the content, for people. Raises UsageError when it cannot be read or is something else."""
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=type_)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=where, advice=advice) from error
    # msgspec's own errors are ValueErrors, as are bad UTF-8 and a path with a null byte.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not {what}: {error}", where=where, advice=advice) from error


def _replace(path: str, content: bytes) -> None:
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:
            file.write(content)
        return
    fresh = f"{path}.{os.getpid()}.tmp"
    try:
        with open(fresh, "xb") as file:
            file.write(content)
        os.replace(fresh, path)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            with contextlib.suppress(OSError):
                os.unlink(fresh)
        raise
