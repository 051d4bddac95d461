"""radium serve: be an acceptor."""

import argparse
import socket
import sys
from pathlib import Path

from radium.errors import UsageError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("serve", help="be an acceptor", description="Runs split calls of other machines.")
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:7000", help="default: %(default)s")
    parser.add_argument("--token-file", metavar="F", help="a secret that initiators must know; needed beyond loopback")
    parser.add_argument("--max-memory", metavar="BYTES", type=int, help="writable memory of one mirror")
    parser.add_argument("--max-sessions", metavar="N", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--connections-fd", metavar="FD", type=int, help="serve the connections that come through this socket")
    parser.set_defaults(run=run)


def split_endpoint(text: str, flag: str) -> tuple[str, int]:
    """HOST:PORT, [IPV6]:PORT. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{flag} {text} is not HOST:PORT", advice=f"write for example {flag} 127.0.0.1:7000")
    return host.strip("[]"), int(port)


def read_token(path: str | None) -> str | None:
    """The secret in the file, without white space around it. Raises UsageError."""
    if path is None:
        return None
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path} cannot be read ({error})", advice="write a secret into it") from None
    if not token:
        raise UsageError(f"--token-file {path} is empty", advice="write a secret into it")
    return token


def _say(text: str) -> None:
    print(f"radium: {text}", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    from radium.replay.sandbox import Limits
    from radium.replay.server import Options, PrivateServer, Server, listen

    if args.max_memory is not None and args.max_memory <= 0:
        raise UsageError(f"--max-memory {args.max_memory} is not a size", advice="give bytes")
    token = read_token(args.token_file)
    options = Options(token, Limits(args.max_memory), args.max_sessions)
    if args.connections_fd is not None:
        PrivateServer(socket.socket(fileno=args.connections_fd), options, _say).serve()
        return 0
    host, port = split_endpoint(args.listen, "--listen")
    sock = listen(host, port, token)
    bound = sock.getsockname()
    _say(f"serving on {f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}")
    Server(sock, options, _say).serve()
    return 0
