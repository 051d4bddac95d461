"""radium attach: split a running program."""

import argparse

from radium.commands import options
from radium.errors import UsageError
from radium.linux import procfs


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "attach", help="split a running program", description="Ctrl-C, SIGTERM or --duration detach; the program goes on."
    )
    options.add_shared(parser)
    parser.add_argument("--pid", type=int, required=True, metavar="PID")
    parser.add_argument("--duration", type=float, metavar="S", help="detach after so many seconds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from radium.tracer.admission import admit
    from radium.tracer.wakeups import Wakeups

    if args.duration is not None and not args.duration > 0:
        raise UsageError(f"--duration {args.duration:g} is not a time", advice="give seconds, more than 0")
    admit(args.pid)
    console = options.console_of(args)
    wakeups = Wakeups(duration_s=args.duration)
    work = options.job(args, console, wakeups, procfs.command_line(args.pid))
    with console.table(work.report) as table:
        work.update = table.update
        work.attach(args.pid)
    if work.status is None:
        console.event(f"detached from PID {args.pid}")
    else:
        console.event(f"PID {args.pid} has ended")
    return options.finish(args, work, console) or 0
