"""radium serve: listens, and gives every connection a process of its own.

SIGTERM or SIGINT drains: no new sessions; running calls finish, then their sessions end, then we do.
"""

import ipaddress
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from radium.channel import Channel
from radium.errors import AcceptorLost, JobFailed, NotPossible, RadiumError, UsageError
from radium.linux.signals import read_signals, signalfd
from radium.replay.sandbox import Limits
from radium.replay.session import Session

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    max_sessions: int = 64


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """Loopback needs no token; anything else does. Raises UsageError, NotPossible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror}", advice="give HOST:PORT") from None
    if token is None and not ipaddress.ip_address(address[0]).is_loopback:
        raise UsageError(
            f"--listen {host}:{port} is not loopback, and there is no token",
            advice="give --token-file F with a secret that the initiator has too",
        )
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(64)
    except OSError as error:
        raise NotPossible(
            f"cannot listen on {host}:{port} ({error.strerror})", advice="choose another --listen HOST:PORT"
        ) from None
    return sock


class Server:
    def __init__(self, sock: socket.socket, options: Options, say: Say) -> None:
        self.sock = sock
        self.options = options
        self.say = say
        self.sessions: set[int] = set()
        self.draining = False
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD])
        self._signals = signalfd([signal.SIGTERM, signal.SIGINT, signal.SIGCHLD])

    def serve(self) -> None:
        """Until drained."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        poll.register(self.sock, select.POLLIN)
        while not self.draining or self.sessions:
            ready = {fd for fd, _ in poll.poll()}
            if self._signals in ready:
                self._attend(read_signals(self._signals))
            if not self.draining and self.sock.fileno() in ready:
                self._accept()
            if self.draining and self.sock.fileno() >= 0:
                poll.unregister(self.sock)
                self.sock.close()

    def _attend(self, numbers: list[int]) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if {signal.SIGTERM, signal.SIGINT} & set(numbers) and not self.draining:
            self.draining = True
            self.say(f"draining: {len(self.sessions)} sessions finish their calls")
            for pid in self.sessions:
                os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while self.sessions:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self.sessions and os.WIFSIGNALED(status):
                self.say(f"a session was killed by {signal.Signals(os.WTERMSIG(status)).name} (pid {pid})")
            self.sessions.discard(pid)

    def _accept(self) -> None:
        try:
            sock, address = self.sock.accept()
        except OSError as error:
            self.say(f"a connection could not be accepted ({error.strerror})")
            return
        if len(self.sessions) >= self.options.max_sessions:
            self.say(f"{address[0]}:{address[1]} turned away: {self.options.max_sessions} sessions are running")
            sock.close()
            return
        self._begin(sock, f"{address[0]}:{address[1]}")

    def _begin(self, sock: socket.socket, peer: str) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self.say(f"{peer} turned away: no process for it ({error.strerror})")
            sock.close()
            return
        if pid == 0:
            self._become_session(sock, peer)
        sock.close()
        self.sessions.add(pid)

    def _become_session(self, sock: socket.socket, peer: str) -> None:
        """In the child; does not return."""
        self.sock.close()
        os.close(self._signals)
        run_session(sock, peer, self.options, self.say)


class PrivateServer(Server):
    """Serves one initiator's job: its connections come by SCM_RIGHTS through `sock`, and no more when that closes."""

    def _accept(self) -> None:
        try:
            said, passed, _, _ = socket.recv_fds(self.sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            said, passed = b"", []
        self.draining = not said
        for fd in passed:
            self._begin(socket.socket(fileno=fd), "initiator")


def run_session(sock: socket.socket, peer: str, options: Options, say: Say) -> None:
    """Serves one connection and ends the process."""
    code = 1
    try:
        Session(Channel(sock, peer), options.token, options.limits).serve()
        code = 0
    except AcceptorLost as loss:
        say(f"session ended: {loss}")
    except (RadiumError, JobFailed) as error:
        say(f"session with {peer}: {error}")
    except Exception as error:  # noqa: BLE001 - the last line of a session: whatever it was, it gets one line
        say(f"session with {peer}: internal error: {type(error).__name__}: {error}")
        if os.environ.get("RADIUM_DEBUG"):
            sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)
