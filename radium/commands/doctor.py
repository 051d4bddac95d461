"""`radium doctor [--json]`: what this machine can do for radium, and the one command that mends each gap.

Every probe tries the feature itself, on this process or on a child of its own; versions are only shown. A probe returns
what it found, or raises Gap or OSError. Exit code: 0 when attach and serve can work, 3 otherwise.

Sources: ptrace(2), userfaultfd(2), ioctl_userfaultfd(2), pidfd_getfd(2), seccomp(2), capabilities(7), namespaces(7),
Documentation/admin-guide/LSM/Yama.rst, Documentation/admin-guide/sysctl/vm.rst.
"""

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from radium import __version__
from radium.bpf.program import INSTALL, load_bcc
from radium.core.addr import PAGE_SIZE
from radium.errors import NotPossible, RadiumError
from radium.linux import namespaces, pagemap, pidfd, procfs, ptrace, seccomp, userfaultfd, vm
from radium.linux.libc import NUMBERS, syscall
from radium.tracer import uprobe

State = Literal["ok", "degraded", "missing"]
ATTACH = ("attach", "run")
SERVE = ("serve",)
BOTH = (*ATTACH, *SERVE)

AS_ROOT = "sudo radium ..."

# <linux/capability.h>
CAPABILITIES = {
    "CAP_SYS_PTRACE": (19, "processes of other users, faults inside system calls"),
    "CAP_SYS_ADMIN": (21, "the mirror's sandbox, tracees with a seccomp filter of their own"),
    "CAP_PERFMON": (38, "the uprobe trap"),
    "CAP_BPF": (39, "the uprobe trap"),
    "CAP_CHECKPOINT_RESTORE": (40, "libraries that were deleted or replaced on disk (/proc/PID/map_files)"),
}
NAMESPACES = {
    "net": namespaces.NEWNET,
    "mount": namespaces.NEWNS,
    "ipc": namespaces.NEWIPC,
    "uts": namespaces.NEWUTS,
    "pid": namespaces.NEWPID,
    "user": namespaces.NEWUSER,
}
PR_SET_MM_MAP_SIZE = 15  # <linux/prctl.h>
# <linux/userfaultfd.h>
UFFD_USER_MODE_ONLY = 1


class Gap(Exception):
    """A feature that is not there, or only in part: what was found, and what mends it if that differs from the rule."""

    def __init__(self, detail: str, *, mend: str | None = None, state: State | None = None) -> None:
        super().__init__(detail)
        self.mend = mend
        self.state = state


class Probe(NamedTuple):
    """One feature. needed_by: the commands that cannot work without it; mend: the command that usually brings it."""

    name: str
    purpose: str
    needed_by: tuple[str, ...]
    mend: str
    find: Callable[[], str]


class Check(NamedTuple):
    """What a probe found. mend is empty when the state is ok."""

    probe: Probe
    state: State
    detail: str
    mend: str

    def as_json(self) -> dict[str, str]:
        """The keys of `radium doctor --json`."""
        return {
            "name": self.probe.name,
            "state": self.state,
            "detail": self.detail,
            "mend": self.mend,
            "for": self.probe.purpose,
        }


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `radium doctor`."""
    parser = subparsers.add_parser("doctor", help="what this machine can do, and how to mend the rest")
    parser.add_argument("--json", action="store_true", help="write the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probe this machine and tell. Returns 0 when attach and serve can work, else 3."""
    checks = [examine(probe) for probe in PROBES]
    can = abilities(checks)
    if args.json:
        found = [check.as_json() for check in checks]
        print(json.dumps({"radium": __version__, "machine": machine(), "checks": found, "can": can}, indent=2))
    else:
        _show(checks, can)
    return 0 if can["attach"] and can["serve"] else 3


def examine(probe: Probe) -> Check:
    """Run one probe; whatever it meets becomes a state and a detail."""
    failed: State = "missing" if probe.needed_by else "degraded"
    try:
        return Check(probe, "ok", probe.find(), "")
    except Gap as gap:
        mend = probe.mend if gap.mend is None else gap.mend
        return Check(probe, gap.state or failed, str(gap), mend)
    except OSError as exc:
        return Check(probe, failed, exc.strerror or str(exc), probe.mend)
    except (ImportError, RadiumError) as exc:
        return Check(probe, failed, str(exc), probe.mend)


def abilities(checks: list[Check]) -> dict[str, bool]:
    """Which commands can work: those that need nothing that is missing."""
    lost = {command for check in checks if check.state == "missing" for command in check.probe.needed_by}
    return {command: command not in lost for command in BOTH}


def machine() -> dict[str, str | int]:
    """What identifies this machine in a problem report."""
    return {
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 1,
        "uid": os.geteuid(),
    }


def _show(checks: list[Check], can: dict[str, bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "degraded": "yellow", "missing": "bold red"}
    table = Table(box=None, pad_edge=False)
    table.add_column("state", no_wrap=True)
    for column in ("feature", "found", "for"):
        table.add_column(column, overflow="fold")
    for check in checks:
        state = Text(check.state, style=styles[check.state])
        table.add_row(state, check.probe.name, Text(check.detail), Text(check.probe.purpose))
    print(f"radium {__version__} on " + ", ".join(f"{key} {value}" for key, value in machine().items()))
    # Into a file or a pipe every check is one line, for grep.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)
    for mend, names in _mends(checks).items():
        print(f"{mend}    # mends {', '.join(names)}")
    print(", ".join(f"{command} {'can' if able else 'CANNOT'} work here" for command, able in can.items()))


def _mends(checks: list[Check]) -> dict[str, list[str]]:
    """Each command that mends something, with the names of what it mends."""
    mends: dict[str, list[str]] = {}
    for check in checks:
        if check.mend:
            mends.setdefault(check.mend, []).append(check.probe.name)
    return mends


class _Child:
    """A child of ours that waits for `go`, acts and exits; killed and reaped on leaving the `with` block.

    It never outlives its act, so that waiting for it ends also when what was expected of it does not happen.
    """

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self._ready, self._go = os.pipe()
        self._reaped = False
        self.pid = os.fork()
        if self.pid == 0:
            self._live(act)

    def _live(self, act: Callable[[], object]) -> None:
        code = 1
        try:
            os.close(self._go)
            os.read(self._ready, 1)
            act()
            code = 0
        except OSError as exc:
            code = exc.errno or 1
        finally:
            os._exit(code)

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._ready, self._go):
            os.close(fd)
        if not self._reaped:
            os.kill(self.pid, signal.SIGKILL)
            while not self._reaped:
                self.wait()

    def wait(self) -> int:
        """The next wait status; after the one of its end the child is reaped."""
        status = os.waitpid(self.pid, 0)[1]
        self._reaped = os.WIFEXITED(status) or os.WIFSIGNALED(status)
        return status

    def go(self) -> int:
        """Let it act; returns the next wait status."""
        os.write(self._go, b"!")
        return self.wait()

    def seize(self, options: int = 0) -> None:
        """Seize it, and stop it."""
        ptrace.seize(self.pid, options)
        ptrace.interrupt(self.pid)
        if not os.WIFSTOPPED(self.wait()):
            raise Gap("a seized child did not stop")


def _architecture() -> str:
    if platform.machine() != "x86_64" or sys.maxsize < 2**32:
        raise Gap(f"{platform.machine()}, {sys.maxsize.bit_length() + 1}-bit Python")
    return "x86-64"


def _kernel() -> str:
    return platform.release()


def _has_capability(name: str) -> bool:
    return bool(int(procfs.status(os.getpid())["CapEff"], 16) >> CAPABILITIES[name][0] & 1)


def _capability(name: str) -> Callable[[], str]:
    def find() -> str:
        if not _has_capability(name):
            raise Gap(f"not held by uid {os.geteuid()}")
        return "held"

    return find


def _ptrace() -> str:
    with _Child() as child:
        child.seize()
        ptrace.registers(child.pid)
    return "seized, stopped and read a child"


def _yama() -> str:
    scope = _setting("/proc/sys/kernel/yama/ptrace_scope", "0")
    if scope == "0":
        return "not restricted"
    if scope == "3":
        raise Gap("ptrace_scope is 3, nobody may attach until the next boot", mend="sudo reboot")
    if _has_capability("CAP_SYS_PTRACE"):
        return f"ptrace_scope is {scope}, CAP_SYS_PTRACE overrides it"
    raise Gap(f"ptrace_scope is {scope}, attach needs privileges")


def _process_vm() -> str:
    secret = ctypes.create_string_buffer(b"radium")
    with _Child() as child:
        if vm.read(child.pid, ctypes.addressof(secret), 6) != b"radium":
            raise Gap("read something else than what was written")
    return "read a child's memory"


def _suspend_seccomp() -> str:
    with _Child() as child:
        child.seize(ptrace.O_SUSPEND_SECCOMP)
    return "accepted"


def _hardware_breakpoint() -> str:
    getppid = ctypes.CDLL(None).getppid
    address = ctypes.cast(getppid, ctypes.c_void_p).value or 0
    with _Child(getppid) as child:
        child.seize()
        ptrace.set_debug_register(child.pid, 0, address)
        ptrace.set_debug_register(child.pid, 7, 1)
        ptrace.resume(child.pid)
        status = child.go()
        if not os.WIFSTOPPED(status) or ptrace.registers(child.pid).rip != address:
            raise Gap("set, but not hit")
    return "hit in a child"


def _seccomp_trace() -> str:
    with _Child(_filter_and_call) as child:
        ptrace.seize(child.pid, ptrace.O_SECCOMP)
        if child.go() >> 8 != signal.SIGTRAP | ptrace.EVENT_SECCOMP << 8:
            raise Gap("the filtered call was not reported")
    return "a filtered call of a child was reported"


def _filter_and_call() -> None:
    traced = seccomp.build(
        harmless=[seccomp.Rule(NUMBERS["exit_group"])],
        own_addresses=(),
        own=(),
        otherwise=seccomp.TRACE,
    )
    code = ctypes.create_string_buffer(traced, len(traced))
    # struct sock_fprog, <linux/filter.h>: number of 8-byte instructions, pointer to them.
    program = ctypes.create_string_buffer(struct.pack("<H6xQ", len(traced) // 8, ctypes.addressof(code)))
    syscall("prctl", namespaces.PR_SET_NO_NEW_PRIVS, 1)
    syscall("seccomp", seccomp.SET_MODE_FILTER, 0, ctypes.addressof(program))
    os.getppid()


def _pidfd_getfd() -> str:
    ours, theirs = os.pipe()
    try:
        with _Child() as child:
            os.close(theirs)
            taken = pidfd.take_descriptor(child.pid, theirs)
    finally:
        os.close(ours)
    os.close(taken)
    return "took a descriptor of a child"


def _mirror_brk() -> str:
    size = ctypes.c_uint()
    syscall("prctl", namespaces.PR_SET_MM, PR_SET_MM_MAP_SIZE, ctypes.addressof(size))
    return "PR_SET_MM_MAP is there"


@contextlib.contextmanager
def _userfaultfd(features: int) -> Iterator[int]:
    """A descriptor with these features. Raises Gap when the kernel has it without them, OSError when not at all."""
    fd = _open_userfaultfd()[0]
    try:
        try:
            userfaultfd.enable(fd, features)
        except OSError as exc:
            raise Gap(f"not offered by this kernel ({exc.strerror})") from exc
        yield fd
    finally:
        os.close(fd)


def _open_userfaultfd() -> tuple[int, bool]:
    """A descriptor, and whether it also serves faults inside system calls."""
    try:
        return syscall("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK), True
    except PermissionError:
        return syscall("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK | UFFD_USER_MODE_ONLY), False


@contextlib.contextmanager
def _fresh_page() -> Iterator[int]:
    """The address of an anonymous private page of ours that nothing has touched."""
    page = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(page)
    try:
        yield ctypes.addressof(view)
    finally:
        del view
        page.close()


def _userfaultfd_missing() -> str:
    source = ctypes.create_string_buffer(b"radium", PAGE_SIZE)
    with _userfaultfd(0) as fd, _fresh_page() as page:
        userfaultfd.register(fd, page, page + PAGE_SIZE, userfaultfd.MISSING)
        userfaultfd.copy(fd, page, ctypes.addressof(source), PAGE_SIZE, 0)
        if ctypes.string_at(page, 6) != b"radium":
            raise Gap("a page was served, another one came")
    return "served a missing page"


def _userfaultfd_kernel_faults() -> str:
    fd, everywhere = _open_userfaultfd()
    os.close(fd)
    if not everywhere:
        raise Gap("only faults of user code are served", state="degraded")
    return "faults inside system calls are served too"


def _userfaultfd_wp() -> str:
    with _userfaultfd(userfaultfd.FEATURE_WP) as fd, _fresh_page() as page:
        userfaultfd.register(fd, page, page + PAGE_SIZE, userfaultfd.MISSING | userfaultfd.WRITE_PROTECT)
        userfaultfd.write_protect(fd, page, page + PAGE_SIZE, True)
    return "protected a page"


def _userfaultfd_wp_unpopulated() -> str:
    with _userfaultfd(userfaultfd.FEATURE_WP | userfaultfd.FEATURE_WP_UNPOPULATED):
        return "offered"


def _userfaultfd_wp_async() -> str:
    features = userfaultfd.FEATURE_WP | userfaultfd.FEATURE_WP_UNPOPULATED | userfaultfd.FEATURE_WP_ASYNC
    with _userfaultfd(features) as fd, _fresh_page() as page:
        userfaultfd.register(fd, page, page + PAGE_SIZE, userfaultfd.WRITE_PROTECT)
    return "registered a page"


def _pagemap_scan() -> str:
    with contextlib.closing(pagemap.Pagemap(os.getpid())) as pages, _fresh_page() as page:
        ctypes.memset(page, 1, 1)
        if pages.populated(page, page + PAGE_SIZE) != [(page, page + PAGE_SIZE)]:
            raise Gap("a page that is there was not found")
    return "found a page of ours"


def _namespace(flag: int) -> Callable[[], str]:
    def find() -> str:
        with _Child(lambda: namespaces.unshare(flag)) as child:
            code = os.waitstatus_to_exitcode(child.go())
        if code:
            raise Gap(os.strerror(code))
        return "entered a new one"

    return find


def _bcc() -> str:
    load_bcc()
    return "imports"


def _uprobe_trap() -> str:
    try:
        return uprobe.try_out()
    except NotPossible as why:
        raise Gap(why.what, mend=why.advice or None) from why


def _huge_pages() -> str:
    setting = _setting("/sys/kernel/mm/transparent_hugepage/enabled", "")
    if not setting or "[never]" in setting:
        raise Gap(setting or "not in this kernel")
    return setting


def _overcommit() -> str:
    if _setting("/proc/sys/vm/overcommit_memory", "0") == "2":
        raise Gap("strict: a mirror of a big process may not fit")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        raise Gap(f"this shell limits address space to {limit >> 20} MiB", mend="ulimit -v unlimited")
    return "not limited"


def _setting(path: str, otherwise: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return otherwise


PROBES: tuple[Probe, ...] = (
    Probe("x86-64", "registers and instructions that radium knows", BOTH, "use an x86-64 machine", _architecture),
    Probe("kernel", "shown for problem reports; features are tried below", (), "", _kernel),
    *(Probe(name, purpose, (), AS_ROOT, _capability(name)) for name, (_, purpose) in CAPABILITIES.items()),
    Probe("ptrace", "stopping threads, reading and writing registers", BOTH, AS_ROOT, _ptrace),
    Probe(
        "yama",
        "attaching to a process that is not a child",
        ("attach",),
        "sudo sysctl -w kernel.yama.ptrace_scope=0",
        _yama,
    ),
    Probe("process_vm_readv", "reading the tracee's memory", BOTH, AS_ROOT, _process_vm),
    Probe("pidfd_getfd", "taking over the mirror's and the tracee's userfaultfd", BOTH, AS_ROOT, _pidfd_getfd),
    Probe(
        "userfaultfd",
        "serving the mirror's missing pages",
        SERVE,
        "sudo sysctl -w vm.unprivileged_userfaultfd=1",
        _userfaultfd_missing,
    ),
    Probe(
        "userfaultfd in system calls",
        "the same when the kernel touches the page",
        (),
        "sudo sysctl -w vm.unprivileged_userfaultfd=1",
        _userfaultfd_kernel_faults,
    ),
    Probe("userfaultfd WP", "noticing what the mirror writes", SERVE, "boot a kernel from 5.7 on", _userfaultfd_wp),
    Probe(
        "userfaultfd WP_UNPOPULATED",
        "noticing writes to pages that were never touched",
        (),
        "boot a kernel from 6.4 on",
        _userfaultfd_wp_unpopulated,
    ),
    Probe(
        "userfaultfd WP_ASYNC",
        "noticing writes without a stop; else pages are compared by hash",
        (),
        "boot a kernel from 6.7 on",
        _userfaultfd_wp_async,
    ),
    Probe(
        "PAGEMAP_SCAN",
        "finding written pages; else pages are compared by hash",
        (),
        "boot a kernel from 6.7 on",
        _pagemap_scan,
    ),
    Probe(
        "seccomp RET_TRACE",
        "stopping the mirror's system calls",
        SERVE,
        "boot a kernel with CONFIG_SECCOMP_FILTER",
        _seccomp_trace,
    ),
    Probe("suspend seccomp", "tracees with a seccomp filter of their own", (), AS_ROOT, _suspend_seccomp),
    Probe(
        "hardware breakpoints",
        "noticing that a call returns in the mirror",
        SERVE,
        "use a machine (or VM) with debug registers",
        _hardware_breakpoint,
    ),
    Probe(
        "PR_SET_MM",
        "giving the mirror the tracee's heap",
        SERVE,
        "boot a kernel with CONFIG_CHECKPOINT_RESTORE",
        _mirror_brk,
    ),
    *(
        Probe(f"{name} namespace", "the mirror's sandbox", (), AS_ROOT, _namespace(flag))
        for name, flag in NAMESPACES.items()
    ),
    Probe("bcc", "compiling guards for the kernel; else each guarded call stops", (), INSTALL, _bcc),
    Probe("uprobe trap", "guards that the kernel decides; else each guarded call stops", (), AS_ROOT, _uprobe_trap),
    Probe(
        "huge pages",
        "faster first copies of big arrays",
        (),
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        _huge_pages,
    ),
    Probe("overcommit", "a mirror as big as the tracee", (), "sudo sysctl -w vm.overcommit_memory=0", _overcommit),
)
