"""Memory calls of the mirror's threads: checked, made, and journalled, so that home can repeat them (DESIGN.md 6)."""

import os
import signal
from collections.abc import Callable

from radium.core.addr import page_ceil
from radium.core.mapping import (
    ADVICE_WITHOUT_EFFECT,
    ANONYMOUS,
    MADV_FREE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MAP_TYPE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    REPEATABLE_FLAGS,
    LayoutCall,
    clip,
    covered,
    replay,
)  # fmt: skip
from radium.core.pages import subtract
from radium.core.regs import Registers
from radium.errors import Conflict, JobFailed
from radium.linux import ptrace
from radium.replay import vessel
from radium.replay.mirror import Mirror
from radium.replay.outcome import GoHome, Link
from radium.replay.page_ins import PageIns
from radium.replay.threads import Thread

Arguments = tuple[int, int, int, int, int, int]


class MemoryCalls:
    def __init__(self, mirror: Mirror, link: Link, page_ins: PageIns) -> None:
        self._mirror = mirror
        self._link = link
        self._page_ins = page_ins

    def make(self, thread: Thread, name: str, regs: Registers) -> None:
        """The thread stands before the call, and goes on behind it. Raises GoHome for one that home has to make."""
        arguments = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
        if name == "madvise" and arguments[2] in ADVICE_WITHOUT_EFFECT | {MADV_FREE}:
            # MADV_FREE lets the kernel keep the pages (madvise(2)), and so do we.
            thread.answer(regs, 0)
            return
        if not self._mirror.may_change_layout or not self._is_possible(name, arguments):
            raise GoHome(f"syscall:{name}", thread.tid)
        if name == "mremap":
            self._page_ins.bring(arguments[0], arguments[0] + arguments[1])
        elif name == "brk":
            self._agree_on_brk()
        result = _make(thread)
        if -4096 < result - (1 << 64) < 0:
            # The mirror has its mappings cut otherwise than home, and limits of its own: home may well say yes.
            ptrace.set_registers(thread.pid, regs)
            raise GoHome(f"syscall:{name}", thread.tid)
        if name != "brk" or result != self._mirror.brk:
            self._mirror.record(LayoutCall(name, arguments, result))
        thread.resume()

    def _agree_on_brk(self) -> None:
        """A brk moves within a page without a change of layout, so home is asked before the first one of a call."""
        if not any(call.name == "brk" for call in self._mirror.journal):
            brk = self._link.home_brk()
            try:
                self._mirror.set_brk(brk)
            except OSError as error:
                raise JobFailed(f"the mirror cannot have the tracee's brk: {error.strerror}", where=f"{brk:#x}") from None

    def _is_possible(self, name: str, a: Arguments) -> bool:
        """Whether the mirror may make this call: it must mean the same here as at home, and fit home's layout."""
        allowed: dict[str, Callable[[], bool]] = {
            "mmap": lambda: self._is_plain_mmap(a),
            "munmap": lambda: self._fits(name, a, 0),
            "mprotect": lambda: a[2] <= 7 and self._fits(name, a, 0),
            "brk": lambda: True,
            "mremap": lambda: self._is_plain_mremap(a),
            "madvise": lambda: self._fits(name, a, 0),
        }
        return allowed[name]()

    def _fits(self, name: str, a: Arguments, result: int) -> bool:
        try:
            replay(self._mirror.layout, self._mirror.brk, [LayoutCall(name, a, result)])
        except Conflict:
            return False
        return True

    def _is_plain_mmap(self, a: Arguments) -> bool:
        flags = a[3]
        if not flags & MAP_ANONYMOUS or flags & MAP_TYPE != MAP_PRIVATE or flags & ~REPEATABLE_FLAGS or a[2] > 7:
            return False
        if not flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            return True
        return not self._is_ours(a[0], a[0] + page_ceil(a[1])) and self._fits("mmap", a, a[0])

    def _is_ours(self, start: int, end: int) -> bool:
        """Memory of the vessel, the vdso, or anything else that is not the tracee's."""
        return any(
            m.start < end and start < m.end
            for m in self._mirror.vessel.mappings()
            if not clip(self._mirror.layout, m.start, m.end)
        )

    def _is_plain_mremap(self, a: Arguments) -> bool:
        pieces = clip(self._mirror.layout, a[0], a[0] + page_ceil(a[1]))
        return (
            len(pieces) == 1
            and bool(pieces[0].kind & ANONYMOUS)
            and not subtract([(a[0], a[0] + page_ceil(a[1]))], covered(pieces))
            and a[1] > 0
            and not a[3] & ~(MREMAP_MAYMOVE | MREMAP_FIXED)
            and not a[3] & MREMAP_FIXED
        )


def _make(thread: Thread) -> int:
    """Lets the kernel make the call that the thread is stopped at; its raw result."""
    while True:
        ptrace.resume_to_syscall(thread.pid)
        status = vessel.wait(thread.pid)
        if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
            return ptrace.registers(thread.pid).rax
