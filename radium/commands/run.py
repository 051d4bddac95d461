"""radium run: start a program with its splits active."""

import argparse
import shutil
import signal

from radium.commands import options
from radium.errors import RadiumError, UsageError
from radium.tracer.wakeups import Wakeups


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "run", help="start a program with its splits active", description="Exits as the program does (128+N for a signal)."
    )
    options.add_shared(parser)
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="-- PROGRAM ARGS...")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    command = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not command:
        raise UsageError("there is no program to run", advice="write it behind --: radium run --split blas -- PROGRAM")
    if shutil.which(command[0]) is None:
        raise UsageError(f"{command[0]}: there is no such program", advice="give a path, or a name that PATH finds")
    # The terminal sends Ctrl-C to the program too; what it does then is its own business. (It would inherit SIG_IGN.)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    console = options.console_of(args)
    wakeups = Wakeups((signal.SIGTERM, signal.SIGHUP))
    work = options.job(args, console, wakeups, command)
    with console.table(work.report, shared_terminal=True) as table:
        work.update = table.update
        try:
            code = work.run(command)
        except RadiumError:
            # The program was left as it was found, and is not left alone.
            if work.main is not None and work.status is None:
                work.await_program()
            raise
    if work.main is not None and work.status is None:
        code = work.main.report.exit = work.await_program()
    verdict = options.finish(args, work, console)
    return code if verdict is None else verdict
