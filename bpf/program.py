"""Compiling BPF programs with bcc (Debian's python3-bpfcc), without kernel headers.

PyPI's `bcc` is an unrelated package; bcc's own is a pure ctypes module over libbcc, which Debian puts where only its own
Python looks. It is loaded from there by its path, so that nothing else of that folder can be imported by mistake.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from radium.bpf.maps import Map
from radium.errors import NotPossible

_BCC = Path("/usr/lib/python3/dist-packages/bcc/__init__.py")
_HERE = Path(__file__).parent
# uapi/linux/bpf.h: BPF_TRACE_UPROBE_MULTI. Without it, such a program can be attached by perf events only.
UPROBE_MULTI = 48
Kind = Literal["uprobe", "uprobe_multi", "perf_event"]
_PERMIT = "run radium as root, or give it CAP_BPF and CAP_PERFMON"
INSTALL = "sudo apt-get install --no-install-recommends python3-bpfcc"


class Programs:
    """The programs of one C text, compiled; `load` gives them to the kernel. To be closed: its maps live as long."""

    def __init__(self, text: str, defines: Sequence[str] = ()) -> None:
        """defines: NAME or NAME=VALUE. Raises NotPossible when there is no bcc, or the text cannot be compiled."""
        bcc = load_bcc()
        os.environ["BCC_KERNEL_SOURCE"] = str(_HERE / "kernel_headers")
        flags = ["-Wno-everything", *(f"-D{define}" for define in defines)]
        with _Captured() as said:
            try:
                self._bpf: Any = bcc.BPF(text=text.encode(), cflags=flags)
            except Exception as error:  # noqa: BLE001 - bcc raises nothing more precise
                if "not permitted" in said.first_error():
                    raise NotPossible("BPF is not permitted", advice=_PERMIT) from None
                raise NotPossible(f"a BPF program cannot be compiled: {said.first_error() or error}") from None
        self._bcc = bcc

    def load(self, function: str, kind: Kind) -> int:
        """The descriptor of this function of the text, as `links` want it; it is closed with `close`. Raises NotPossible."""
        types = {"uprobe": self._bcc.BPF.KPROBE, "uprobe_multi": self._bcc.BPF.KPROBE, "perf_event": self._bcc.BPF.PERF_EVENT}
        attach_type = UPROBE_MULTI if kind == "uprobe_multi" else 0xFFFFFFFF
        with _Captured() as said:
            try:
                loaded = self._bpf.load_func(function.encode(), types[kind], attach_type=attach_type)
            except Exception as error:  # noqa: BLE001 - bcc raises nothing more precise
                advice = "" if os.geteuid() == 0 else _PERMIT
                raise NotPossible(
                    f"the kernel refuses a BPF program: {said.first_error() or error}", advice=advice
                ) from None
        return int(loaded.fd)

    def map(self, name: str) -> Map:
        table = self._bpf[name.encode()]
        return Map(table.map_fd, self._bcc.ct.sizeof(table.Key), self._bcc.ct.sizeof(table.Leaf))

    def on_records(self, name: str, handler: Callable[[bytes], None]) -> None:
        """handler(bytes) is called, in `poll`, with each record of this BPF_RINGBUF_OUTPUT."""

        def call(context: object, data: int, nbytes: int) -> None:
            handler(self._bcc.ct.string_at(data, nbytes))

        self._bpf[name.encode()].open_ring_buffer(call)

    def poll(self, timeout_ms: int) -> None:
        """Handles the records that there are; waits for some as long as that."""
        self._bpf.ring_buffer_poll(timeout_ms)
        # A program may have left some without waking us.
        self._bpf.ring_buffer_consume()

    def close(self) -> None:
        self._bpf.cleanup()


def load_bcc() -> ModuleType:
    """Debian's bcc. Raises NotPossible."""
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    spec = importlib.util.spec_from_file_location("bcc", _BCC, submodule_search_locations=[str(_BCC.parent)])
    if not _BCC.exists() or spec is None or spec.loader is None:
        raise NotPossible("BPF needs bcc, which is not installed", advice=INSTALL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError, AttributeError) as error:
        del sys.modules["bcc"]
        raise NotPossible(f"bcc cannot be loaded ({error})", advice=INSTALL) from error
    return module


def source(name: str) -> str:
    """The text of a program of ours."""
    return (_HERE / f"{name}.c").read_text()


class _Captured:
    """What libbcc writes to stderr meanwhile."""

    def __enter__(self) -> "_Captured":
        sys.stderr.flush()
        self._saved, self._file = os.dup(2), tempfile.TemporaryFile()
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *exception: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._file.close()

    def first_error(self) -> str:
        self._file.seek(0)
        lines = [line.strip() for line in self._file.read().decode(errors="replace").splitlines()]
        return next((line for line in lines if "error" in line.lower() or "not permitted" in line.lower()), "")
