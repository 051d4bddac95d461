"""How a call in the mirror ends, and what it needs of the connection meanwhile."""

from typing import NamedTuple, Protocol

from radium.core import wire
from radium.core.pages import Runs


class GoHome(Exception):
    """A call goes on at home from where its threads stand now. reason: as a report says it; tid: whom it is about."""

    def __init__(self, reason: str, tid: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tid = tid


class CallFailed(Exception):
    """The mirror cannot take the call up; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Outcome(NamedTuple):
    """How a call ended here: RETURNED or why it goes home; and all threads of the mirror, standing.

    brought: pages that came for its sake while it was here, roughly.
    others_wait_again: its other threads wait in a futex again where they waited at home: none is in the middle of something.
    """

    call: wire.Call
    reason: str
    tid: int
    threads: list[wire.Standing]
    seconds: float
    brought: Runs
    others_wait_again: bool


class Link(Protocol):
    """The connection, as running calls see it."""

    def fileno(self) -> int: ...

    @property
    def buffered(self) -> bool:
        """Whether the initiator has said something that is still to be heard."""

    def fetch(self, address: int, end: int) -> bool:
        """Pages [address, end) as far as they exist at home; False if not even the first one does."""

    def home_brk(self) -> int:
        """The tracee's brk now."""

    def clock_of(self, tid: int, clock: int) -> tuple[int, int]:
        """What that clock says to the tracee's thread, in ns, and an errno, 0 for none."""

    def state_of(self, tid: int) -> wire.State:
        """Of a thread that waits at home."""

    def must_drain(self) -> bool:
        """Whether the acceptor is shutting down and has waited long enough."""

    def beat(self) -> None: ...
