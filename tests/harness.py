"""Runs radium and its targets as a user would, and says what differs.

Everything here waits for an event (a line, an exit) or polls with a deadline where there is none; nothing sleeps to
give something else time. Every process started here is killed by its pid at the end of the test.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

DEADLINE_S = 30.0  # for anything that should happen at once: generous, because machines that test are busy
TARGETS = Path(__file__).parent / "targets"
READY = r"^READY$"


class Lines:
    """The lines of one stream as they come, kept for the report of a failure."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._changed = threading.Condition()
        self._ended = False
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for raw in self._stream:
            with self._changed:
                self.seen.append(raw.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, timeout_s: float = DEADLINE_S) -> re.Match[str]:
        """The first line from index `after` on that matches; AssertionError at the end of the stream or in time."""
        deadline = time.monotonic() + timeout_s
        at = after
        with self._changed:
            while True:
                for line in self.seen[at:]:
                    if match := re.search(pattern, line):
                        return match
                at = max(at, len(self.seen))
                left = deadline - time.monotonic()
                assert not self._ended, f"{self._name} ended without {pattern!r}:\n{self.tail()}"
                assert left > 0, f"no {pattern!r} on {self._name} in {timeout_s} s:\n{self.tail()}"
                self._changed.wait(left)

    def wait_for_end(self, timeout_s: float) -> bool:
        """Whether all writers of the stream have gone in that time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def finish(self) -> str:
        """All of the stream, when its writers have gone."""
        self._thread.join(DEADLINE_S)
        return "\n".join(self.seen)

    def tail(self) -> str:
        return "\n".join(self.seen[-30:])


def exit_code(returncode: int) -> int:
    """As a shell says it: 128+N for a signal."""
    return 128 - returncode if returncode < 0 else returncode


class Running:
    """A process with its output, until `wait`."""

    def __init__(self, argv: Sequence[object], cwd: Path, env: dict[str, str], *, pass_stdin: bool = True) -> None:
        self.argv = [str(word) for word in argv]
        self.process = subprocess.Popen(
            self.argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if pass_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        name = Path(self.argv[0]).name
        self.out = Lines(self.process.stdout, f"{name}'s stdout")
        self.err = Lines(self.process.stderr, f"{name}'s stderr")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def release(self) -> None:
        """Sends the byte that a held target waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGTERM) -> None:
        if self.alive:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """The exit code; AssertionError with the last lines when it does not end in time."""
        try:
            return exit_code(self.process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.argv} did not end in {timeout_s} s\n{self.out.tail()}\n{self.err.tail()}"
            ) from None

    def check_success(self, timeout_s: float = DEADLINE_S) -> str:
        """Waits for a self-checking target to end well; its output."""
        code = self.wait(timeout_s)
        text = self.out.finish()
        assert code == 0 and text.endswith("EXIT-SUCCESS"), f"exit {code}\n{self.out.tail()}\n{self.err.tail()}"
        return text


def descendants(pid: int) -> list[int]:
    """Pids of all living children, grandchildren, ... of `pid`, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if stat[0] not in "ZX":
                    parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return found


def descendants_named(pid: int, name: str) -> list[int]:
    return [child for child in descendants(pid) if Path(f"/proc/{child}/comm").read_text().strip() == name]


def kill_all(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def poll_until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    """For what has no event to wait for: asks again until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.005)


@dataclass
class Result:
    """What a command left behind."""

    stdout: str
    stderr: str
    exit: int
    report: dict[str, Any] | None = None

    def split(self, name: str) -> dict[str, Any]:
        return split_of(self.report, name)

    def remote(self, name: str) -> int:
        return remote_of(self.report, name)

    def local(self, name: str) -> int:
        return int(self.split(name)["calls"]["local"])

    def reasons(self, name: str) -> dict[str, int]:
        return dict(self.split(name)["local_reasons"])

    def check_no_traceback(self) -> "Result":
        assert "Traceback" not in self.stderr, self.stderr
        return self


def split_of(report: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """The report's entry of the function `name`; exactly one is expected."""
    assert report is not None, "no report was written"
    found = [split for split in report["splits"] if split["name"].rpartition(":")[2] == name]
    assert len(found) == 1, f"{name}: {[split['name'] for split in report['splits']]}"
    return dict(found[0])


def remote_of(report: dict[str, Any] | None, name: str) -> int:
    return int(split_of(report, name)["calls"]["remote"])


def remote_total(report: dict[str, Any] | None) -> int:
    """Calls of all splits that were committed from an acceptor."""
    assert report is not None, "no report was written"
    return sum(int(split["calls"]["remote"]) for split in report["splits"])


def assert_same(whole: Result, split: Result) -> None:
    """The program did the same in both: output byte by byte, and exit code."""
    if whole.stdout != split.stdout:
        ours, theirs = split.stdout.splitlines(), whole.stdout.splitlines()
        at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(ours), len(theirs)) if at is None else at
        raise AssertionError(
            f"output differs at line {at + 1}\n before {theirs[max(0, at - 3) : at]}\n whole  {theirs[at : at + 3]}\n"
            f" split  {ours[at : at + 3]}\n exit {split.exit}, stderr:\n{split.stderr[-3000:]}"
        )
    assert whole.exit == split.exit, f"exit {split.exit} instead of {whole.exit}\n{split.stderr[-3000:]}"
    split.check_no_traceback()


class Workplace:
    """Starts processes in an empty folder and ends what a test leaves running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []
        self._reports = 0
        self.env = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
        self.env.pop("TARGET_HOLD", None)

    # -- processes -----------------------------------------------------------------------------------------------------

    def start(self, argv: Sequence[object], *, hold: bool = False, ready: bool = True) -> Running:
        """A target, whole; hold: it waits behind READY until `release`."""
        env = dict(self.env, TARGET_HOLD="1") if hold else self.env
        running = self.popen(argv, env)
        if ready:
            running.out.wait_for(READY)
        return running

    def popen(self, argv: Sequence[object], env: dict[str, str] | None = None, *, pass_stdin: bool = True) -> Running:
        running = Running(argv, self.folder, env or self.env, pass_stdin=pass_stdin)
        self._running.append(running)
        return running

    def close(self) -> None:
        for running in reversed(self._running):
            kill_all([*([running.pid] if running.alive else []), *descendants(running.pid)])
            running.process.wait()
            if running.process.stdin is not None:
                with suppress(OSError):
                    running.process.stdin.close()

    def finish(self, running: Running, timeout_s: float = DEADLINE_S) -> Result:
        try:
            code = running.wait(timeout_s)
        except AssertionError:
            kill_all([running.pid, *descendants(running.pid)])
            raise
        return Result(running.out.finish(), running.err.finish(), code)

    # -- radium --------------------------------------------------------------------------------------------------------

    def radium(self, *arguments: object, timeout_s: float = DEADLINE_S) -> Result:
        """`radium ARGUMENTS` to its end."""
        return self.finish(self.popen(radium_argv(*arguments), pass_stdin=False), timeout_s)

    def run_whole(self, argv: Sequence[object], timeout_s: float = DEADLINE_S) -> Result:
        return self.finish(self.popen(argv, pass_stdin=False), timeout_s)

    def start_split(
        self, argv: Sequence[object], profile: object, *extra: object, acceptor: object = None, hold: bool = False
    ) -> "Session":
        """`radium run` in the background."""
        report = self._report()
        command = ["run", "--split", profile, "--report", report, *where(acceptor), *extra, "--", *argv]
        env = dict(self.env, TARGET_HOLD="1") if hold else self.env
        return Session(self.popen(radium_argv(*command), env, pass_stdin=hold), report)

    def run_split(
        self,
        argv: Sequence[object],
        profile: object,
        *extra: object,
        acceptor: object = None,
        timeout_s: float = 2 * DEADLINE_S,
    ) -> Result:
        """`radium run --split PROFILE --report F -- ARGV` to its end; extra: more flags."""
        session = self.start_split(argv, profile, *extra, acceptor=acceptor)
        result = self.finish(session.running, timeout_s)
        result.report = session.report(optional=True)
        return result

    def same(self, argv: Sequence[object], profile: object, *extra: object, **options: Any) -> Result:
        """Runs whole and split, asserts that both did the same, and returns the split run."""
        whole = self.run_whole(argv)
        split = self.run_split(argv, profile, *extra, **options)
        assert_same(whole, split)
        return split

    def attach(self, pid: int, profile: object, *extra: object, acceptor: object = None) -> "Session":
        """`radium attach`, returned when it says that it is attached."""
        session = self.start_attach(pid, profile, *extra, acceptor=acceptor)
        session.running.err.wait_for(rf"radium: attached to PID {pid}\b")
        return session

    def start_attach(self, pid: int, profile: object, *extra: object, acceptor: object = None) -> "Session":
        report = self._report()
        command = ["attach", "--split", profile, "--pid", pid, "--report", report, *where(acceptor), *extra]
        return Session(self.popen(radium_argv(*command), pass_stdin=False), report)

    def serve(self, *extra: object, listen: str = "127.0.0.1:0", prefix: Sequence[object] = ()) -> "Acceptor":
        return Acceptor(self, listen, extra, prefix)

    def _report(self) -> Path:
        self._reports += 1
        return self.folder / f"report{self._reports}.json"


def radium_argv(*arguments: object) -> list[object]:
    """The radium of the interpreter that runs the tests, installed or by PYTHONPATH."""
    return [sys.executable, "-m", "radium", *arguments]


def where(acceptor: object) -> list[object]:
    return [] if acceptor is None else ["--acceptor", getattr(acceptor, "address", acceptor)]


@dataclass
class Session:
    """A radium run or attach in the background."""

    running: Running
    path: Path

    def report(self, *, optional: bool = False) -> dict[str, Any] | None:
        if optional and not self.path.exists():
            return None
        loaded = json.loads(self.path.read_text())
        assert isinstance(loaded, dict)
        return loaded

    def detach(self, number: int = signal.SIGINT) -> dict[str, Any]:
        """Asks for a detach and waits for it; the report."""
        self.running.kill(number)
        return self.ended()

    def ended(self, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        code = self.running.wait(timeout_s)
        stderr = self.running.err.finish()
        assert code == 0, f"exit {code}: {stderr}"
        assert "Traceback" not in stderr, stderr
        report = self.report()
        assert report is not None
        return report


class Acceptor:
    """`radium serve`, which can be killed and come back on the same port."""

    def __init__(self, workplace: Workplace, listen: str, extra: Sequence[object], prefix: Sequence[object]) -> None:
        self._workplace = workplace
        self._extra = extra
        self._prefix = prefix
        self._start(listen)

    def _start(self, listen: str) -> None:
        command = [*self._prefix, *radium_argv("serve", "--listen", listen, *self._extra)]
        self.running = self._workplace.popen(command, pass_stdin=False)
        said = self.running.err.wait_for(r"radium: serving on (\S+:\d+)")
        self.address = said.group(1)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def sessions(self) -> list[int]:
        """Every process of every session: all that the server started."""
        return descendants(self.running.pid)

    def kill_sessions(self) -> None:
        kill_all(self.sessions())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """The server and all its sessions at once."""
        kill_all([self.running.pid, *self.sessions()], number)

    def restart(self) -> None:
        self.running.wait()
        self._start(self.address)


class Proxy:
    """A TCP relay that misbehaves by plan. For each connection the next of `plans` says how; after the last, it relays.

    A plan is (direction, nbytes, act): after nbytes of "up" (to the acceptor) or "down", `act` is done: "cut" closes
    both ends, "stall" passes nothing any more.
    """

    def __init__(self, target: str, plans: Iterable[tuple[str, int, str]] = (), delay_s: float = 0.0) -> None:
        """delay_s: how much longer than without it everything takes, each way."""
        self._delay_s = delay_s
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._plans = list(plans)
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = {"up": 0, "down": 0}  # of the whole life
        self.connections = 0
        self.done: list[tuple[str, int, str]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                plan = self._plans.pop(0) if self._plans else ("", 0, "")
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._sockets += [near, far]
            for name, source, sink in (("up", near, far), ("down", far, near)):
                limit = plan[1] if plan[0] == name else None
                threading.Thread(target=self._relay, args=(name, source, sink, limit, plan), daemon=True).start()

    def _relay(
        self, name: str, source: socket.socket, sink: socket.socket, limit: int | None, plan: tuple[str, int, str]
    ) -> None:
        left = limit
        with suppress(OSError):
            while left is None or left > 0:
                data = source.recv(65536 if left is None else min(left, 65536))
                if not data:
                    break
                if self._delay_s:
                    time.sleep(self._delay_s)
                sink.sendall(data)
                self.passed[name] += len(data)
                left = None if left is None else left - len(data)
        if left == 0:
            self.done.append(plan)
            if plan[2] == "stall":
                return
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()
        for end in self._sockets:
            end.close()


# -- what a tracee looks like from outside -----------------------------------------------------------------------------


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def thread_states(pid: int) -> dict[int, str]:
    states = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            states[int(task.name)] = (task / "stat").read_text().rpartition(")")[2].split()[0]
    return states


def code_of(pid: int, library: str) -> bytes:
    """The bytes of the executable mappings of a library in a living process."""
    code = b""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split()
            if fields[-1].endswith("/" + library) and "x" in fields[1]:
                start, _, end = fields[0].partition("-")
                memory.seek(int(start, 16))
                code += memory.read(int(end, 16) - int(start, 16))
    assert code, f"{library} is not mapped"
    return code


def flags_of_mappings(pid: int) -> list[str]:
    """VmFlags of every mapping: a userfaultfd registration left behind shows as uw, um or ui."""
    smaps = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    return [line for line in smaps if line.startswith("VmFlags:")]


def descriptors(pid: int) -> dict[str, str]:
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # A process that runs may have closed it meanwhile.
        with suppress(FileNotFoundError):
            found[entry.name] = os.readlink(entry)
    return found


@dataclass
class Snapshot:
    """All of a tracee that a session could have changed and must not leave changed."""

    code: bytes
    maps: str
    flags: list[str]
    descriptors: dict[str, str]
    status: dict[str, str]
    threads: set[int]

    KEPT = ("SigIgn", "SigCgt", "SigBlk", "TracerPid", "Threads", "Seccomp", "NoNewPrivs", "CapEff", "Uid")

    @classmethod
    def of(cls, pid: int, library: str) -> "Snapshot":
        now = status(pid)
        return cls(
            code_of(pid, library),
            Path(f"/proc/{pid}/maps").read_text(),
            flags_of_mappings(pid),
            descriptors(pid),
            {key: now[key] for key in cls.KEPT},
            set(thread_states(pid)),
        )

    def check_same(self, now: "Snapshot") -> None:
        assert now.code == self.code, "code bytes differ"
        assert now.descriptors == self.descriptors
        assert now.status == self.status
        assert now.threads == self.threads
        assert now.maps == self.maps
        assert now.flags == self.flags


def progress(running: Running, *, steps: int = 2, timeout_s: float = DEADLINE_S) -> None:
    """Waits until a longrun target has gone on by some progress lines."""
    for _ in range(steps):
        running.out.wait_for(r"^progress ", after=len(running.out.seen), timeout_s=timeout_s)


def calls_made(running: Running) -> int:
    """The calls that a longrun target has last reported."""
    lines = [line for line in running.out.seen if line.startswith("progress ")]
    return int(lines[-1].split()[1]) if lines else 0
