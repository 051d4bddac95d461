"""Signals that wait for a tracee whose threads are stopped.

Source: proc(5) on SigPnd, ShdPnd, SigBlk, SigIgn, SigCgt. A traced process queues ignored signals too, so those are
sorted out here (signal(7) for the default dispositions).
"""

import signal

from radium.errors import TraceeGone
from radium.linux import procfs
from radium.linux.signals import mask_of

_IGNORED_BY_DEFAULT = mask_of([signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT])


def deliverable(pid: int, tid: int) -> int:
    """The lowest signal that thread `tid`, or any thread of the process, would get if it ran; 0 for none."""
    try:
        own = procfs.status(pid, tid)
    except TraceeGone:
        return 0
    pending, shared, blocked = (int(own[key], 16) for key in ("SigPnd", "ShdPnd", "SigBlk"))
    waiting = (pending | shared) & ~blocked
    if not waiting:
        return 0
    ignored, caught = int(own["SigIgn"], 16), int(own["SigCgt"], 16)
    waiting &= ~ignored & ~(_IGNORED_BY_DEFAULT & ~caught)
    return (waiting & -waiting).bit_length()
