"""A bare process for tests of what is done to processes: a vessel, with a page of code and some memory of its own.

And an acceptor for tests that speak with one themselves.
"""

from collections.abc import Iterator

import pytest
from conversation import Conversation
from harness import Acceptor, Workplace

from radium.core.addr import PAGE_SIZE
from radium.core.regs import NO_SYSCALL
from radium.linux import ptrace
from radium.replay import vessel
from radium.replay.sandbox import Limits

BASE, CODE, DATA = 0x20000, 0x10000000, 0x20000000
DATA_NPAGES = 64
MAP_PRIVATE_ANONYMOUS_FIXED = 0x32
INT3 = b"\xcc"


class Bare:
    """Runs machine code in a vessel; `data` has DATA_NPAGES pages, none of which exists yet."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.vessel = vessel.Vessel(BASE, limits)
        self.pid = self.vessel.pid
        self.map(CODE, 1, prot=7)
        self.map(DATA, DATA_NPAGES)

    def map(self, start: int, npages: int, prot: int = 3) -> None:
        nbytes = npages * PAGE_SIZE
        self.vessel.call("mmap", start, nbytes, prot, MAP_PRIVATE_ANONYMOUS_FIXED, (1 << 64) - 1, 0)

    def stand(self, code: str, **values: int) -> None:
        """Puts the stopped thread before the code (hexadecimal; an int3 follows it), with these registers."""
        self.vessel.memory.write(CODE, bytes.fromhex(code) + INT3)
        self.stand_at(CODE, **values)

    def stand_at(self, address: int, **values: int) -> None:
        regs = self.vessel.registers.copy()
        regs.rip, regs.orig_rax = address, NO_SYSCALL
        for name, value in values.items():
            setattr(regs, name, value)
        ptrace.set_registers(self.pid, regs)

    def start(self, code: str, **values: int) -> None:
        """Sets the thread going at the code."""
        self.stand(code, **values)
        ptrace.resume(self.pid)

    def start_at(self, address: int, **values: int) -> None:
        self.stand_at(address, **values)
        ptrace.resume(self.pid)

    def run(self, code: str, **values: int) -> int:
        """The wait status of the stop that the code ends with."""
        self.start(code, **values)
        return vessel.wait(self.pid)

    def write(self, address: int, value: int = 1) -> None:
        """The process writes a byte of its memory itself."""
        # mov [rdi], sil
        status = self.run("408837", rdi=address, rsi=value)
        assert status == 0x57F, hex(status)

    def read(self, address: int) -> None:
        # mov al, [rdi]
        status = self.run("8a07", rdi=address)
        assert status == 0x57F, hex(status)


@pytest.fixture
def bare() -> Iterator[Bare]:
    process = Bare()
    yield process
    process.vessel.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acceptor]:
    """One acceptor for all tests of a module: it must outlive them."""
    workplace = Workplace(tmp_path_factory.mktemp("server"))
    yield workplace.serve()
    workplace.close()


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    return Conversation()
