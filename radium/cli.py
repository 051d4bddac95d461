"""The command line: argv to a command, its outcome to an exit code.

This file alone knows the exit codes: 0 done, 1 the job failed, 2 wrong usage or a bad profile, 3 not permitted or
not possible here; `radium run` answers with the program's own.

Each command is a module of radium.commands with `add_parser(subparsers)`, which sets `run`, a function of the parsed
arguments that returns the exit code. Only the module of the command asked for is imported, so that a dependency that
is broken breaks only what needs it.
"""

import argparse
import importlib
import os
import sys
import traceback
from typing import Any, NoReturn

from radium import __version__
from radium.errors import NotPossible, RadiumError, UsageError

COMMANDS = {
    "run": "start a program with its splits active",
    "attach": "split a running program",
    "trace": "find good split points, write a profile",
    "serve": "be an acceptor",
    "profiles": "list, show and check profiles",
    "explain": "tell in words why calls ran here or there",
    "doctor": "what this machine can do, and how to mend the rest",
}

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
BROKEN_PIPE = 141  # 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """argparse that reports wrong usage as one line and takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with a hint where to read on."""
        raise UsageError(message, advice=f"see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv (default: sys.argv[1:]) names and return its exit code. Raises nothing."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except RadiumError as exc:
        _complain(str(exc))
        return _exit_code(exc)
    except Exception as exc:  # noqa: BLE001 - the last line of defence: a traceback is a bug, a line can be reported
        _complain(_internal_error(exc))
        return 1
    return code


def _run(argv: list[str]) -> int:
    try:
        chosen = next((word for word in argv if not word.startswith("-")), "")
        args = _parser(chosen).parse_args(argv)
    except SystemExit as exc:  # --help and --version have printed and are done
        return int(exc.code or 0)
    return int(args.run(args))


def _parser(chosen: str) -> Parser:
    """The parser of the whole command line, complete for the chosen command only."""
    parser = Parser(
        prog="radium", description="Split a running program at function boundaries; its calls run on another machine."
    )
    parser.add_argument("--version", action="version", version=f"radium {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == chosen:
            _command(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _command(name: str) -> Any:
    try:
        return importlib.import_module(f"radium.commands.{name}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] == "radium":
            raise
        raise NotPossible(
            f"radium {name} needs the Python package {exc.name}, which is not installed",
            advice="install radium again with pip, which brings its dependencies",
        ) from exc


def _exit_code(exc: RadiumError) -> int:
    if isinstance(exc, UsageError):
        return 2
    return 3 if isinstance(exc, NotPossible) else 1


def _internal_error(exc: Exception) -> str:
    debugging = bool(os.environ.get("RADIUM_DEBUG"))
    if debugging:
        traceback.print_exception(exc)
    hint = "" if debugging else " (set RADIUM_DEBUG=1 for the traceback)"
    return f"internal error: {type(exc).__name__}: {' '.join(str(exc).split())}{hint}"


def _complain(line: str) -> None:
    from radium.live import Console

    Console(quiet=False).event(line)


def _abandon_stdout() -> None:
    """Let the flush at interpreter exit go nowhere, or it fails a second time (Python's signal module, on SIGPIPE)."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
