"""Every exception of radium. Each is one line: what happened, where, what to do. Imports nothing.

The command line alone maps a class to an exit code (cli.py).
"""


class RadiumError(Exception):
    """Something that a user is told in one line.

    what: what happened; where: pid, symbol, address or file and line; advice: what to do next.
    """

    def __init__(self, what: str, *, where: str = "", advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.advice:
            line += f"; {self.advice}"
        return " ".join(line.split())


class JobFailed(RadiumError):
    """The job was possible and failed."""


class UsageError(RadiumError):
    """Wrong flags or arguments."""


class ProfileError(UsageError):
    """A profile that cannot be taken; `where` is file:line."""


class ExpressionError(RadiumError):
    """A guard or memory expression that cannot be compiled or evaluated."""


class NotPossible(RadiumError):
    """Not permitted, or not possible on this machine or with this tracee."""


class TraceeGone(RadiumError):
    """The tracee, or the thread in question, has ended. An answer, not a failure."""


class RemoteFault(RadiumError):
    """Memory of another process that is not there, or not accessible."""


class AcceptorLost(RadiumError):
    """The connection broke, the acceptor died, fell silent or spoke nonsense."""


class AcceptorRefused(RadiumError):
    """The acceptor declined the session, with a reason."""


class FrameError(RadiumError):
    """Bytes that are not a frame of this protocol."""


class Conflict(RadiumError):
    """An answer that does not fit the tracee any more; the call runs at home."""
