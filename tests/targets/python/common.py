"""What the Python targets share: the ready line, and the end."""

import os
import signal


def ready():
    """Says READY and, with TARGET_HOLD in the environment, waits until a byte arrives on stdin."""
    print("READY", flush=True)
    if "TARGET_HOLD" in os.environ:
        os.read(0, 1)


def success():
    print("EXIT-SUCCESS", flush=True)


def until_sigterm():
    """A function that says whether SIGTERM has come. The handler takes no lock, which the main thread might hold."""
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    return lambda: bool(seen)
