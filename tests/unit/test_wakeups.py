"""What ends a wait of the initiator's."""

import os
import select
import signal

import pytest

from radium.tracer.wakeups import Wakeups


@pytest.fixture
def wakeups():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    wakeups = Wakeups()
    yield wakeups
    wakeups.read()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(wakeups.fd)


def ends_a_wait(wakeups):
    return bool(select.select([wakeups.fd], [], [], 0)[0])


def test_stop_between_a_look_and_a_wait(wakeups):
    """Asking whether we are told to end takes nothing away that tells of a stop."""
    signal.raise_signal(signal.SIGCHLD)
    assert not wakeups.wants_end
    assert ends_a_wait(wakeups)
    wakeups.read()
    assert not ends_a_wait(wakeups)


def test_end(wakeups):
    """A request to end is seen by who asks, and by who reads."""
    signal.raise_signal(signal.SIGTERM)
    assert wakeups.wants_end
    assert not ends_a_wait(wakeups)
    signal.raise_signal(signal.SIGINT)
    wakeups.read()
    assert wakeups.take_received() == [signal.SIGTERM, signal.SIGINT]
