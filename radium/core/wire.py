"""The protocol between initiator and acceptor: messages, frames, version.

A frame is a header (magic, bytes of the message, bytes of the payload), a MessagePack message, and a payload of page
contents in the order of the message's page runs. Everything that arrives is checked here for shape; whether it fits
the tracee is checked by who applies it.
"""

import re
import struct
from collections.abc import Sequence
from math import inf

import msgspec

from radium.core import pages, regs
from radium.core.addr import USER_END
from radium.core.mapping import Area, LayoutCall, LayoutDelta
from radium.core.xstate import Component
from radium.errors import FrameError

PROTOCOL = 6
MAGIC = b"RAD\x05"
HEADER = struct.Struct("<4sIQ")
# Bounds of a frame: a message holds a layout (60 bytes a mapping, 65,530 mappings at most: vm.max_map_count) or runs.
MAX_MESSAGE = 64 << 20
MAX_PAYLOAD = 1 << 40
MAX_BULK = 16 << 20
# Words of Setup.mm.
NMM = 10


# Answer.reason of a function that returned to its caller.
RETURNED = "returned"
_REASON = re.compile(r"returned|exception|longjmp|stack|stuck|timeout|recall|drain|(syscall|fault|signal):\w{1,40}", re.ASCII)


class Frame(msgspec.Struct, array_like=True):
    """The split function's frame, and what leaves it otherwise than by its return.

    back: the return address; rsp: the stack pointer at the entry, which is at `back`'s place on the stack.
    set_ip: `_Unwind_SetIP`, by which exceptions land; longjmps: where longjmp and its like begin. 0 and []: not there.
    """

    back: int
    rsp: int
    set_ip: int = 0
    longjmps: list[int] = []


class Standing(msgspec.Struct, array_like=True):
    """A thread of the tracee's, and from where it goes on.

    tid: its id at home, which names it here; as_seen: the id that the program sees (in its own pid namespace).
    mask: blocked signals, bit n-1 for signal n.
    xstate: empty for one that waits in a futex, whose state is asked for when it is woken.
    """

    tid: int
    as_seen: int
    mask: int
    registers: bytes
    xstate: bytes


class Clocks(msgspec.Struct, array_like=True, frozen=True):
    """CLOCK_MONOTONIC and CLOCK_BOOTTIME in ns, whose zeros are each machine's own; or what is to be added to another's."""

    monotonic: int = 0
    boottime: int = 0


SAME_CLOCKS = Clocks()


class Message(msgspec.Struct, array_like=True, tag=True):
    """Base of all messages; the class's name is its tag."""


class Hello(Message):
    """Initiator: who I am and what the tracee's code may need."""

    protocol: int
    radium: str
    token: str
    page_size: int
    cpu: list[str]


class Welcome(Message):
    protocol: int
    radium: str
    kernel: str
    abilities: list[str]
    boot: str  # the kernel's boot id
    clocks: Clocks  # now


class Refused(Message):
    reason: str
    advice: str = ""


class Setup(Message):
    """The tracee as it is when the first call leaves: what a mirror is built from."""

    pid: int
    layout: list[Area]
    special: list[Area]  # the kernel's own mappings; `what` is the name
    vdso: bytes  # the image
    brk: int
    mm: list[int]  # start_code end_code start_data end_data start_brk start_stack arg_start arg_end env_start env_end
    identity: dict[str, int]  # what getpid and the like answer
    tracking: str  # "auto", "pagemap" or "checksum"
    clocks: Clocks  # what home's are ahead of the acceptor's
    may_change_layout: bool  # whether memory calls of the mirror can be repeated at home
    components: list[Component]  # of the extended states in calls and answers; empty: unknown


class Call(Message):
    """A split call leaves: from its entry, or from where it was when it had come home. The payload: the pages of `pages`.

    The tracee's other threads stand at home while it is away, and some of them go with it: those of `running` run in the
    mirror too, those of `waiting` wait in a futex until the call wakes them. Not so where alone is False: some wait at home
    in a way that a mirror does not know, or they all go on there (`threads = "run"`). Then whom a futex wakes, and who wakes
    it, is at home, and so is the layout.
    """

    number: int
    thread: Standing
    frame: Frame
    running: list[Standing]
    waiting: list[Standing] | None  # None: as in the last call
    alone: bool
    delta: LayoutDelta
    brk: int
    drop: bytes  # page runs that the mirror forgets
    zero: bytes  # page runs that are zero at home
    pages: bytes
    scratch: bytes  # page runs whose dirty pages are of no use at home
    results: bytes  # page runs that the call will write: they count as written
    contended: bytes  # page runs that home writes too: the mirror drops those that came for a call when that call is home
    seconds: float  # deadline


class Fetch(Message):
    """Acceptor: the mirror needs the page at `address`, and would like what follows up to `end`."""

    address: int
    end: int


class Pages(Message):
    """Answer to Fetch: pages of `pages` in the payload, of `zero` all zero; neither holds `address`: nothing is there."""

    address: int
    zero: bytes
    pages: bytes


class Answer(Message):
    """The call comes home, with all that it has done since it left. The payload holds the dirty pages.

    reason: RETURNED, or why it goes home in the middle. tid: the thread that the reason is about.
    threads: all that ran in the mirror, calls that stay away included, and from where each would go on at home.
    """

    number: int
    reason: str
    tid: int
    threads: list[Standing]
    journal: list[LayoutCall]
    brk: int
    dirty: bytes
    stale: bytes  # dead stack: present in the mirror, and unequal to home's
    contended: bytes  # page runs that the mirror has dropped after this
    seconds: float  # in the mirror


class Failed(Message):
    """The mirror could not take the call up; no trace of it is left but `dropped`, which is no longer held."""

    number: int
    reason: str
    dropped: bytes
    seconds: float


class Discard(Message):
    """Initiator: home has written what the calls that are away may have read; they are to be forgotten."""


class Discarded(Message):
    """Answer to Discard: no call is in the mirror, and the pages of `dropped` are no longer held."""

    dropped: bytes


class Recall(Message):
    """Initiator: the call is to come home now."""

    number: int


class Beat(Message):
    """I am alive and the call is running."""


class AskBrk(Message):
    """Acceptor: the call moves its brk; where is the tracee's now?"""


class Brk(Message):
    """Answer to AskBrk."""

    brk: int


class AskClock(Message):
    """Acceptor: a thread of the call's asks for a clock (clockid_t) that is the tracee's own; what does it say?"""

    tid: int
    clock: int


class Clock(Message):
    """Answer to AskClock: the time in ns, or an errno."""

    ns: int
    error: int


class AskThread(Message):
    """Acceptor: the call wakes this thread, which waits at home; what is its extended state?"""

    tid: int


class State(Message):
    """Answer to AskThread: what its Standing left out."""

    tid: int
    mask: int
    xstate: bytes


class AskNow(Message):
    """Initiator: what do the acceptor's clocks say now?"""


class Now(Message):
    """Answer to AskNow."""

    clocks: Clocks


class Bulk(Message):
    """Initiator: my payload is to be thrown away, and answered by Bulk with a payload of so many bytes."""

    back_nbytes: int


class Bye(Message):
    """No more frames come from me."""

    reason: str = ""


class Audit(Message):
    """Initiator, for the debug mode of invariant 3: the hashes of these pages, please."""

    pages: bytes


class Digests(Message):
    digests: bytes  # 16 bytes a page


FromInitiator = Hello | AskNow | Bulk | Setup | Call | Pages | Brk | Clock | State | Recall | Discard | Bye | Audit
FromAcceptor = (
    Welcome | Refused | Now | Bulk | Fetch | AskBrk | AskClock | AskThread | Answer | Failed | Discarded | Beat | Bye | Digests
)
AnyMessage = FromInitiator | FromAcceptor

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode


def encode(message: Message, payload_nbytes: int = 0) -> bytes:
    """Header and message; the payload follows them on the wire."""
    body = _encode(message)
    return HEADER.pack(MAGIC, len(body), payload_nbytes) + body


def decode_header(raw: bytes | memoryview) -> tuple[int, int]:
    """(bytes of the message, bytes of the payload). Raises FrameError."""
    magic, message_nbytes, payload_nbytes = HEADER.unpack(raw)
    if magic[:3] != MAGIC[:3]:
        raise FrameError("the peer does not speak radium's protocol", advice="check the acceptor's host and port")
    if magic != MAGIC:
        raise FrameError(f"the peer's frames are of version {magic[3]}, ours of {MAGIC[3]}")
    if message_nbytes > MAX_MESSAGE or payload_nbytes > MAX_PAYLOAD:
        raise FrameError(f"a frame claims {message_nbytes} + {payload_nbytes} bytes, more than any frame has")
    return message_nbytes, payload_nbytes


def decode(raw: bytes | memoryview) -> AnyMessage:
    """Raises FrameError, also for a message whose values can be those of no process."""
    try:
        message = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FrameError(f"a message cannot be read ({error})") from None
    if isinstance(message, Call):
        _check_call(message)
    elif isinstance(message, Setup):
        _check_setup(message)
    elif isinstance(message, Answer):
        _check_answer(message)
    elif isinstance(message, Bulk) and not 0 <= message.back_nbytes <= MAX_BULK:
        raise FrameError(f"a measurement of {message.back_nbytes} bytes")
    elif isinstance(message, Brk) and not 0 <= message.brk <= USER_END:
        raise FrameError(f"a brk of {message.brk:#x}")
    return message


def _check_call(call: Call) -> None:
    frame = call.frame
    places = (frame.back, frame.rsp, frame.set_ip, *frame.longjmps)
    if not all(0 <= place < USER_END for place in places):
        raise FrameError("a call with a frame outside of user space")
    _check_threads([call.thread, *call.running, *(call.waiting or [])])
    if not 0 < call.seconds < inf or not 0 <= call.brk <= USER_END:
        raise FrameError(f"a call with {call.seconds} s to run and brk {call.brk:#x}")
    _check_runs(call.delta.unmap)
    _check_areas(call.delta.map)
    _check_areas(call.delta.protect)


def _check_answer(answer: Answer) -> None:
    if not _REASON.fullmatch(answer.reason):
        raise FrameError(f"an answer whose reason is {answer.reason[:40]!r}")
    _check_threads(answer.threads)


def _check_threads(threads: Sequence[Standing]) -> None:
    if any(len(thread.registers) != regs.FORMAT.size or not 0 <= thread.mask <= regs.U64 for thread in threads):
        raise FrameError("a thread without registers or a mask")
    if len({thread.tid for thread in threads}) != len(threads):
        raise FrameError("a thread that is named twice")


def _check_setup(setup: Setup) -> None:
    _check_areas(setup.layout)
    _check_areas(setup.special)
    if len(setup.mm) != NMM or not all(0 <= value <= USER_END for value in (*setup.mm, setup.brk)):
        raise FrameError("a setup whose program lies outside of user space")


def _check_areas(areas: Sequence[Area]) -> None:
    _check_runs([(area.start, area.end) for area in areas])
    if not all(0 <= area.prot <= 7 for area in areas):
        raise FrameError("a layout with unknown protections")


def _check_runs(ranges: pages.Runs) -> None:
    try:
        pages.check(ranges)
    except ValueError as error:
        raise FrameError(str(error)) from None


def runs(raw: bytes, payload_nbytes: int | None = None) -> pages.Runs:
    """Page runs of a message, checked; with `payload_nbytes`, also that the payload holds exactly their pages."""
    try:
        out = pages.unpack(raw)
    except ValueError as error:
        raise FrameError(str(error)) from None
    if payload_nbytes is not None and pages.total(out) != payload_nbytes:
        raise FrameError(f"a payload of {payload_nbytes} bytes for page runs of {pages.total(out)}")
    return out
