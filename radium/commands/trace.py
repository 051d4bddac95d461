"""radium trace: find good split points, say what they would bring, write a profile that attach takes as it is."""

import argparse
import os
import shutil
import sys
import time

from radium import files
from radium.commands import options
from radium.commands.serve import read_token, split_endpoint
from radium.errors import JobFailed, UsageError
from radium.linux import procfs
from radium.live import Console
from radium.tracer.acceptors import Acceptors
from radium.tracer.admission import admit
from radium.tracer.discovery import link, page, profile_text, table
from radium.tracer.discovery.findings import Findings, Link
from radium.tracer.discovery.trace import Trace
from radium.tracer.launch import await_end, hold, raise_limit
from radium.tracer.stops import Statuses
from radium.tracer.wakeups import Wakeups

DURATION_S = 6.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "trace", help="find good split points, write a profile",
        description="Watches a program: samples its stacks, counts calls, tries some in a mirror and discards the results.",
    )  # fmt: skip
    parser.add_argument("--pid", type=int, metavar="PID", help="of a running program")
    parser.add_argument(
        "--duration", type=float, default=DURATION_S, metavar="S",
        help=f"how long it is watched, in seconds (default: {DURATION_S:g}); one that is started here runs to its end",
    )  # fmt: skip
    options.add_where(parser)
    parser.add_argument("--rtt", metavar="TIME", help="of the link to reckon with, as 100us; else it is measured")
    parser.add_argument("--bandwidth", metavar="RATE", help="of the link to reckon with, as 10Gbit; else it is measured")
    parser.add_argument("-o", dest="profile", metavar="PROFILE.toml", help="write a profile of what is worth a split")
    parser.add_argument("--json", metavar="F", help="write all that was found as JSON")
    parser.add_argument("--html", metavar="F", help="write it as a page for a browser")
    parser.add_argument("--quiet", action="store_true", help="say only errors, and no table")
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="-- PROGRAM ARGS...")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    command = args.program[1:] if args.program[:1] == ["--"] else args.program
    _check(args, command)
    if args.pid is not None:
        admit(args.pid)
    console = options.console_of(args)
    wakeups = Wakeups()
    endpoints = [split_endpoint(text, "--acceptor") for text in args.acceptor]
    acceptors = Acceptors(endpoints, read_token(args.token_file) or "", console.event)
    tried = link.measure(acceptors)
    acceptors.close()
    trace = Trace(acceptors, wakeups, tried, _reckoned(args, tried), args.duration)
    if args.pid is not None:
        found = trace.find(args.pid, procfs.command_line(args.pid))
        _tell(args, found, pid=args.pid)
    else:
        _trace_command(args, trace, wakeups, command, console)
    return 0


def _trace_command(args: argparse.Namespace, trace: Trace, wakeups: Wakeups, command: list[str], console: Console) -> None:
    statuses = Statuses()
    pid, release = hold(command, raise_limit())
    statuses.awaited.add(pid)
    started = time.monotonic()
    found = trace.find(pid, command, release)
    if trace.status is None:
        console.event(f"PID {pid} has been watched for {found.duration_s:.1f} s; its end is awaited")
        await_end(pid, statuses, wakeups)
    trace.complete(found, time.monotonic() - started - (found.overhead.trying_s or 0.0))
    _tell(args, found, pid=None)


def _check(args: argparse.Namespace, command: list[str]) -> None:
    if (args.pid is None) == (not command):
        raise UsageError("one program is to be traced", advice="give either --pid PID or -- PROGRAM ARGS...")
    if command and shutil.which(command[0]) is None:
        raise UsageError(f"{command[0]}: there is no such program", advice="give a path, or a name that PATH finds")
    for text, parse in ((args.rtt, link.parse_rtt), (args.bandwidth, link.parse_bandwidth)):
        if text is not None:
            parse(text)
    if not 0 < args.duration < 1e6:
        raise UsageError(f"--duration {args.duration:g} is not a time", advice="give seconds, more than 0")
    for path in filter(None, (args.profile, args.json, args.html)):
        folder = os.path.dirname(os.path.abspath(path))
        if not os.access(folder, os.W_OK) or os.path.isdir(path):
            raise JobFailed(f"{path} cannot be written", advice="give a path in a folder that is there and writable")


def _reckoned(args: argparse.Namespace, measured: Link) -> Link:
    """The link as measured, but for what is given."""
    if not args.rtt and not args.bandwidth:
        return measured
    rtt_s = link.parse_rtt(args.rtt) if args.rtt else measured.rtt_s
    bytes_per_s = link.parse_bandwidth(args.bandwidth) if args.bandwidth else measured.bytes_per_s
    return Link(measured.acceptor, rtt_s, bytes_per_s, "given")


def _tell(args: argparse.Namespace, found: Findings, pid: int | None) -> None:
    """pid: the program's, None if it has ended."""
    text = profile_text.text(found) if args.profile else None
    if args.profile and text is not None:
        files.write(args.profile, text, "the profile", "-o")
    if args.json:
        found.write(args.json)
    if args.html:
        page.write(found, args.html)
    if not args.quiet:
        # Of a program that is started here, stdout is its own.
        stream = sys.stdout if pid is not None else sys.stderr
        table.show(found, stream, table.advice(found, args.profile if text is not None else None, pid))
