"""What ends a wait of the initiator's: stops of the tracee, and requests to end."""

import signal
import time
from collections.abc import Iterable, Sequence

from radium.linux.signals import read_signals, signalfd

# A tracee that stops all the time leaves no time to wait: so often signals are looked for then.
LOOK_S = 0.02


class Wakeups:
    """What ends a wait: a stop or end of the tracee's (SIGCHLD), or a request to end (SIGINT, SIGTERM, a deadline)."""

    ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, ending: Sequence[int] = ENDING, duration_s: float | None = None) -> None:
        """duration_s: how long after `start_clock` the deadline is."""
        self._ending = frozenset(ending)
        self.received: list[int] = []
        self.duration_s = duration_s
        self.deadline: float | None = None
        self._is_asked = False
        self._next_look = 0.0
        blocked = [signal.SIGCHLD, *ending]
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.fd = signalfd(blocked)
        self._ending_fd = signalfd(ending)

    def begin(self, duration_s: float) -> None:
        """For a next piece of work, of that length; what we have been told holds on."""
        self.duration_s, self.deadline, self._is_asked = duration_s, None, False

    def ask_end(self) -> None:
        """As if we were told to end."""
        self._is_asked = True

    def start_clock(self) -> None:
        if self.duration_s is not None:
            self.deadline = time.monotonic() + self.duration_s

    def read(self) -> None:
        self._note(read_signals(self.fd))

    def _note(self, numbers: Iterable[int]) -> None:
        self.received += [number for number in numbers if number in self._ending]

    def take_received(self) -> list[int]:
        """The signals that told us to end since this was asked last."""
        received, self.received = self.received, []
        return received

    @property
    def wants_end(self) -> bool:
        now = time.monotonic()
        if now >= self._next_look:
            # Not what tells of stops: whoever asks may have looked for stops before, and go to wait.
            self._note(read_signals(self._ending_fd))
            self._next_look = now + LOOK_S
        return self._is_asked or bool(self.received) or (self.deadline is not None and now >= self.deadline)

    def timeout_s(self, longest: float) -> float:
        """How long a wait may be."""
        if self.deadline is None or (left_s := self.deadline - time.monotonic()) <= 0:
            return longest
        return min(longest, left_s)
