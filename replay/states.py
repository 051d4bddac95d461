"""Extended states of threads, between the initiator's CPU and ours: the same features may lie elsewhere in the area."""

from collections.abc import Sequence

from radium.core.xstate import Component, translate
from radium.linux.cpuid import state_components


class States:
    """home: the components of the initiator's CPU; own: the state of a thread of ours, for the size of such an area."""

    def __init__(self, home: Sequence[Component], own: bytes) -> None:
        self._home = tuple(home)
        self._here = state_components()
        self._own = own

    def _is_same(self, nbytes: int) -> bool:
        return nbytes == len(self._own) and self._home in ((), self._here)

    def from_home(self, state: bytes) -> bytes:
        """Raises OtherCpu."""
        return state if self._is_same(len(state)) else translate(state, self._home, self._here, self._own)

    def to_home(self, state: bytes, like: bytes) -> bytes:
        """`like`: the state that the thread came with. Raises OtherCpu."""
        return state if self._is_same(len(like)) else translate(state, self._here, self._home, like)
