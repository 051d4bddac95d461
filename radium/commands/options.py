"""Flags that attach and run share, and what is made of them."""

import argparse
import sys
from collections.abc import Sequence

import radium
from radium import files
from radium.commands.serve import read_token, split_endpoint
from radium.errors import JobFailed, UsageError
from radium.live import Console
from radium.profiles.library import open_profile
from radium.profiles.schema import Profile
from radium.report import Report
from radium.tracer.acceptors import Acceptors
from radium.tracer.job import Job, Options
from radium.tracer.session import PagesLeft
from radium.tracer.wakeups import Wakeups


def add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", action="append", required=True, metavar="FILE-OR-NAME", help="a profile, or one of the library's; repeatable"
    )
    add_where(parser)
    parser.add_argument("--report", metavar="F.json", help="write what happened to each call")
    parser.add_argument("--list-pages", metavar="F", help="write which pages left this machine, a line for each run of pages")
    parser.add_argument(
        "--follow", choices=["yes", "no"], default="yes", help="whether children of the program are split too (default: yes)"
    )
    parser.add_argument("--quiet", action="store_true", help="say only errors")
    parser.add_argument(
        "--trap", choices=["auto", "breakpoint", "uprobe"], default="auto",
        help="how calls are noticed; a uprobe's guard is decided by the kernel (default: what suits each function)",
    )  # fmt: skip
    parser.add_argument(
        "--verify", type=float, default=0.0, metavar="FRACTION",
        help="make this share of the calls on both sides, compare, and go on with home's (1: all of them)",
    )  # fmt: skip
    parser.add_argument("--verify-strict", action="store_true", help="exit 1 if a verified call differed")
    parser.add_argument(
        "--call-timeout", type=float, default=600.0, metavar="S", help="a call that takes longer runs at home (default: 600)"
    )
    parser.add_argument(
        "--tracking", choices=["auto", "pagemap", "checksum"], default="auto",
        help="how written pages are found (default: what this kernel can)",
    )  # fmt: skip


def add_where(parser: argparse.ArgumentParser) -> None:
    """The acceptor's flags."""
    parser.add_argument(
        "--acceptor", action="append", default=[], metavar="HOST:PORT",
        help="where split calls run; repeatable; default: a private acceptor on this machine",
    )  # fmt: skip
    parser.add_argument("--token-file", metavar="F", help="the acceptor's secret")


def profiles(args: argparse.Namespace) -> list[Profile]:
    return [open_profile(name) for name in args.split]


def check(args: argparse.Namespace) -> None:
    if not args.call_timeout > 0:
        raise UsageError(f"--call-timeout {args.call_timeout:g} is not a time", advice="give seconds, more than 0")
    if not 0 <= args.verify <= 1:
        raise UsageError(f"--verify {args.verify:g} is not a fraction", advice="give a number from 0 to 1 (all calls)")
    if args.verify_strict and not args.verify:
        raise UsageError("--verify-strict without --verify", advice="give --verify the fraction of calls to verify")


def job(args: argparse.Namespace, console: Console, wakeups: Wakeups, program: Sequence[str]) -> Job:
    """The job that the flags describe. Raises ProfileError, UsageError, JobFailed (a report that cannot be written)."""
    check(args)
    chosen = profiles(args)
    token = read_token(args.token_file) or ""
    endpoints = [split_endpoint(text, "--acceptor") for text in args.acceptor]
    report = Report(radium.__version__, list(program), [], [], [])
    if args.report:
        report.write(args.report)
    acceptors = Acceptors(endpoints, token, console.event)
    choices = Options(args.call_timeout, args.tracking, args.follow == "yes", args.verify, args.trap)
    return Job(chosen, acceptors, report, console, wakeups, choices)


def finish(args: argparse.Namespace, work: Job, console: Console) -> int | None:
    """The summary, and the report. The exit code that --verify-strict demands instead of the command's own, if it does."""
    work.report.acceptors = work.acceptors.used
    console.summary(work.report)
    if args.report:
        work.report.write(args.report)
    if args.list_pages:
        write_pages(args.list_pages, work.pages_left)
    diverged = sum(split.diverged for split in work.report.splits)
    if not args.verify_strict or not diverged:
        return None
    console.error(JobFailed(f"{diverged} verified calls differed", advice="`radium explain` names the first difference"))
    return 1


def write_pages(path: str, pages: Sequence[PagesLeft]) -> None:
    """A line for each run: START-END MAPPING, as in /proc/PID/maps. Raises JobFailed."""
    text = "".join(f"{start:x}-{end:x} {mapping}".rstrip() + "\n" for start, end, mapping in pages)
    files.write(path, text, "the list of pages", "--list-pages")


def console_of(args: argparse.Namespace) -> Console:
    return Console(args.quiet, sys.stderr)
