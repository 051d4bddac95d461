"""What ends a wait of the initiator's: stops of the tracee, and requests to end."""

import signal
import time
from collections.abc import Sequence

from radium.linux.signals import read_signals, signalfd


class Wakeups:
    """What ends a wait: a stop or end of the tracee's (SIGCHLD), or a request to end (SIGINT, SIGTERM, a deadline)."""

    ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, ending: Sequence[int] = ENDING) -> None:
        self._ending = frozenset(ending)
        self.received: list[int] = []
        self.deadline: float | None = None
        blocked = [signal.SIGCHLD, *ending]
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.fd = signalfd(blocked)

    def read(self) -> None:
        self.received += [number for number in read_signals(self.fd) if number in self._ending]

    @property
    def wants_end(self) -> bool:
        return bool(self.received) or (self.deadline is not None and time.monotonic() >= self.deadline)

    def timeout_s(self, longest: float) -> float:
        """How long a wait may be."""
        if self.deadline is None:
            return longest
        return max(0.0, min(longest, self.deadline - time.monotonic()))
