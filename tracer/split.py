"""One split point as the session meets it: guard, memory hints, working set, counters."""

import copy
from collections.abc import Callable, Mapping, Sequence

from radium.core import abi
from radium.core.mapping import Mapping as Mapped
from radium.core.pages import Run, Runs, around
from radium.core.regs import Registers
from radium.errors import ExpressionError
from radium.linux import ptrace
from radium.report import SplitReport
from radium.tracer.call_size import call_size
from radium.tracer.cost import Cost
from radium.tracer.resolve import SplitPoint
from radium.tracer.working_set import Results, WorkingSet

# In the XSAVE area: xmm0 to xmm15 lie at 160, 16 bytes each (Intel SDM volume 1, 10.5.1.2).
_XMM, _XMM_NBYTES = 160, 16
# A hint larger than the user's half of the address space is a wrong hint.
_LARGEST_HINT_NBYTES = 1 << 46


class Split:
    """rejected: how many calls its guard has rejected here; is_settled: whether its trap is not to be changed for that."""

    def __init__(self, point: SplitPoint, report: SplitReport, read_memory: Callable[[int, int], bytes]) -> None:
        self.point = point
        self.report = report
        self.profile = point.split
        self.working_set, self.results = WorkingSet(), Results()
        self._told = point.split.working_set
        self.cost, self.sizing = Cost(), call_size(point.split)
        self.rejected, self.is_settled = 0, False
        self._signature = point.split.signature or abi.DEFAULT
        self._read_memory = read_memory

    def copy_for(self, read_memory: Callable[[int, int], bytes]) -> "Split":
        """The same split point in a forked child, whose memory is read by `read_memory`: it begins with what is known."""
        twin = copy.copy(self)
        twin._read_memory = read_memory
        twin.working_set, twin.cost = copy.deepcopy(self.working_set), copy.deepcopy(self.cost)
        return twin

    @property
    def is_weighed(self) -> bool:
        """Whether measured costs decide where its calls run."""
        return self.profile.policy == "auto"

    def size(self, tid: int, regs: Registers) -> float:
        """By which its calls are told apart, see call_size.py; 1 for all where nothing depends on it."""
        return self.sizing.of(self.arguments(tid, regs)) if self.is_weighed and self.sizing.text else 1.0

    def arguments(self, tid: int, regs: Registers) -> Mapping[str, object]:
        """By name, read when they are asked for; regs are those at the entry."""
        return self._signature.bind(regs, lambda n: _xmm(tid, n), self._read_memory)

    def wants(self, tid: int, regs: Registers) -> bool:
        """The guard's answer; a guard that cannot be evaluated says no."""
        guard = self.profile.guard
        if guard is None:
            return True
        try:
            wants = bool(guard.evaluate(self.arguments(tid, regs)))
        except ExpressionError:
            wants = False
        self.rejected += not wants
        return wants

    def predict(self, rsp: int, mappings: Sequence[Mapped]) -> Runs:
        """The pages that a call entered with this stack pointer will want, as far as earlier ones and the profile tell."""
        if self._told:
            # Now, as all that the profile speaks of should be mapped.
            self.working_set.expect(self._told, mappings)
            self._told = ()
        return self.working_set.predict(rsp)

    def memory(self, tid: int, regs: Registers) -> Runs:
        """The pages that the profile says the call will touch."""
        return around(self.hints(tid, regs)) if self.profile.memory else []

    def hints(self, tid: int, regs: Registers) -> list[Run]:
        """The bytes [start, end) that each of the profile's memory hints names."""
        arguments = self.arguments(tid, regs)
        ranges = []
        for hint in self.profile.memory:
            try:
                start, nbytes = int(hint.at.evaluate(arguments)), int(hint.nbytes.evaluate(arguments))
            except (ExpressionError, OverflowError, ValueError):
                continue
            if 0 < nbytes < _LARGEST_HINT_NBYTES and start > 0:
                ranges.append((start, start + nbytes))
        return ranges


def _xmm(tid: int, number: int) -> bytes:
    at = _XMM + _XMM_NBYTES * number
    return ptrace.xstate(tid)[at : at + _XMM_NBYTES]
