"""Processes as the demo and the benchmark use them: started here, listened to line by line, ended by their pid.

RADIUM in the environment names another radium to run, for instance one of another checkout; it may be several words.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RADIUM = shlex.split(os.environ.get("RADIUM", str(Path(sys.executable).with_name("radium"))))
PATIENCE_S = 60.0  # for anything that is waited for; far more than it takes


def end_in_order() -> None:
    """SIGTERM leaves the `with` blocks as Ctrl-C does, so that nothing that was started here stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Failed(Exception):
    """Something that was promised was not seen."""


class Process:
    """A process whose lines on `listen` ("stdout" or "stderr") are collected; ended on leaving the `with` block."""

    def __init__(self, command: list[str], listen: str, env: dict[str, str] | None = None) -> None:
        pipes: dict[str, Any] = {listen: subprocess.PIPE}
        self.popen = subprocess.Popen(command, text=True, env=env, stdin=subprocess.PIPE, **pipes)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._collect, args=[getattr(self.popen, listen)], daemon=True)
        self._reader.start()

    def _collect(self, pipe: Iterator[str]) -> None:
        for line in pipe:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_for(self, what: Callable[[list[str]], bool], promise: str) -> None:
        """Wait until the lines fulfil `what`; Failed if the process ends or PATIENCE_S pass before."""
        with self._news:
            self._news.wait_for(lambda: what(self.lines) or self._ended, PATIENCE_S)
            if not what(self.lines):
                state = "has ended" if self._ended else f"did not within {PATIENCE_S:.0f} s"
                raise Failed(f"{promise}: not seen; PID {self.pid} {state}, its last words: {self.lines[-3:]}")

    def wait_for_words(self, words: str) -> str:
        """Wait for a line with these words in it, and return it."""
        self.wait_for(lambda lines: any(words in line for line in lines), f"a line with '{words}'")
        return next(line for line in self.lines if words in line)

    def wait_for_more(self, count: int) -> None:
        goal = len(self.lines) + count
        self.wait_for(lambda lines: len(lines) >= goal, f"PID {self.pid} prints {count} more lines")

    def say(self, line: str) -> None:
        """Write a line to the process's stdin."""
        assert self.popen.stdin
        try:
            self.popen.stdin.write(line + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError as error:
            raise Failed(f"PID {self.pid} had ended before it was told '{line}'") from error

    def ask(self, line: str) -> dict[str, Any]:
        """Write a line and return the JSON object that answers it."""
        number = len(self.lines)
        self.say(line)
        self.wait_for(lambda lines: len(lines) > number, f"an answer to '{line}'")
        return json.loads(self.lines[number])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the process, wait for it and for its last line, and return its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            status = self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            status = self.popen.wait()
        self._reader.join(PATIENCE_S)
        return status

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def attach_command(pid: int, split: str, report: Path, where: list[str]) -> list[str]:
    """The words after `radium`."""
    return ["attach", "--pid", str(pid), "--split", split, "--report", str(report), *where]


@contextmanager
def attached(pid: int, split: str, report: Path, where: list[str]) -> Iterator[Process]:
    """`radium attach` for the length of the block; Failed unless it ends with 0. The report is there afterwards."""
    with Process([*RADIUM, *attach_command(pid, split, report, where)], "stderr") as radium:
        radium.wait_for_words("attached to PID")
        yield radium
        status = radium.end(signal.SIGINT)
        if status:
            raise Failed(f"radium attach ended with {status}: {radium.lines[-3:]}")


@contextmanager
def serving() -> Iterator[str]:
    """A `radium serve` on a free port of the loopback interface; yields the HOST:PORT that it says."""
    with Process([*RADIUM, "serve", "--listen", "127.0.0.1:0"], "stderr") as serve:
        yield serve.wait_for_words("serving on").split("serving on")[1].split()[0]
