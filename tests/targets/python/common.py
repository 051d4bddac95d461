"""What the Python targets share: the ready line, and the end."""

import os


def ready():
    """Says READY and, with TARGET_HOLD in the environment, waits until a byte arrives on stdin."""
    print("READY", flush=True)
    if "TARGET_HOLD" in os.environ:
        os.read(0, 1)


def success():
    print("EXIT-SUCCESS", flush=True)
