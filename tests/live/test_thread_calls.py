"""Calls with several threads, in a real acceptor: who runs, waits, is woken, and where each stands when the call comes home."""

import pytest
from conversation import (
    BRK,
    CODE,
    COUNT,
    DATA,
    RET,
    RETURN,
    RSP,
    TID,
    Home,
    await_word,
    dword,
    registers_of,
    set_word,
    store_rax,
    system_call,
)

from radium.core import futex, pages, wire
from radium.core.mapping import Area, LayoutDelta
from radium.core.regs import NO_SYSCALL, U64, Registers
from radium.linux.libc import NUMBERS

# Code of other threads, and of what a thread does behind its call; words that they share; a second stack.
SECOND, THIRD, FOURTH = CODE + 0x200, CODE + 0x400, CODE + 0x600
FLAG, WORD, RESULT, RESULT2, TIME = DATA + 0x10, DATA + 0x40, DATA + 0x80, DATA + 0x88, DATA + 0xC0
OTHER, WAITER, WAITER2 = 2, 3, 4
WAIT, WAKE = futex.WAIT | futex.PRIVATE, futex.WAKE | futex.PRIVATE
EAGAIN, ETIMEDOUT = U64 + 1 - 11, U64 + 1 - 110


@pytest.fixture
def home(server, conversation):
    made = Home(server.port, conversation)
    yield made
    made.close()
    assert not [line for line in server.running.err.seen if "Traceback" in line or "internal error" in line]


def wait_at(home, rip: int, tid: int, *, address: int = WORD, value: int = 0) -> wire.Standing:
    """A thread that waits in a futex at home: it stands before its call."""
    home.put(rip, b"\x0f\x05")
    home.states[tid] = home.conversation.xstate
    regs = home.conversation.registers.copy()
    regs.rip, regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r10 = rip, NUMBERS["futex"], address, WAIT, value, 0
    return wire.Standing(tid, tid, 0, regs.pack(), b"")


# Threads that run


def test_two_threads(home):
    """A thread that came along runs beside the call, and comes home where it is when the call returns."""
    home.put(CODE, set_word(WORD) + await_word(FLAG) + RET)
    home.put(SECOND, await_word(WORD) + set_word(FLAG) + COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER, rbx=99)])
    assert (answer.reason, answer.tid, {s.tid for s in answer.threads}) == (wire.RETURNED, TID, {TID, OTHER})
    regs = registers_of(answer, OTHER)
    assert SECOND <= regs.rip < THIRD and regs.rbx == 99 and regs.orig_rax == NO_SYSCALL
    assert home.word(FLAG) & 0xFFFFFFFF == 1
    assert registers_of(answer).rip == RETURN


def test_a_thread_goes_on_where_it_was(home):
    """From call to call a thread that came along goes on, also when it was at home meanwhile and told anew."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, bytes.fromhex("48ffc3") + set_word(FLAG) + await_word(WORD) + bytes.fromhex("48ffc3") + COUNT)  # inc rbx
    first = home.call(running=[home.conversation.thread_at(SECOND, OTHER, rbx=10)])
    assert registers_of(first, OTHER).rbx == 11
    home.put(CODE, set_word(WORD) + system_call("getpid") * 50 + RET)
    (thread,) = (s for s in first.threads if s.tid == OTHER)
    second = home.call(running=[thread])
    assert registers_of(second, OTHER).rbx in (11, 12)
    assert second.reason == wire.RETURNED


def test_ids_of_threads(home):
    """Each thread is told its own id as the program sees it."""
    tell = system_call("gettid")
    home.put(CODE, tell + store_rax(RESULT) + await_word(FLAG) + RET)
    home.put(SECOND, tell + store_rax(RESULT2) + set_word(FLAG) + COUNT)
    other = home.conversation.thread_at(SECOND, OTHER)
    other.as_seen = 1234
    home.call(running=[other])
    assert (home.word(RESULT), home.word(RESULT2)) == (TID, 1234)


def test_a_system_call_of_another_thread(home):
    """What a thread that came along asks of home brings the call home: both stand, and it is told about whom it is."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, system_call("write", 1, DATA, 0))
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert (answer.reason, answer.tid) == ("syscall:write", OTHER)
    regs = registers_of(answer, OTHER)
    assert (regs.rax, regs.rdi) == (NUMBERS["write"], 1) and home.memory[CODE][regs.rip - CODE :][:2] == b"\x0f\x05"
    assert CODE <= registers_of(answer).rip < SECOND


def test_a_fault_of_another_thread(home):
    """A fault of a thread that came along brings the call home, to before the instruction."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, bytes.fromhex("8b042500000000"))  # mov eax, [0]
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert (answer.reason, answer.tid, registers_of(answer, OTHER).rip) == ("fault:SIGSEGV", OTHER, SECOND)


def test_the_return_is_the_callers(home):
    """Another thread that comes by the return address is not stopped there."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(RETURN, set_word(FLAG) + COUNT)
    answer = home.call(running=[home.conversation.thread_at(RETURN, OTHER, rsp=RSP + 8)])
    assert (answer.reason, answer.tid) == (wire.RETURNED, TID)
    assert RETURN < registers_of(answer, OTHER).rip < SECOND


def test_many_threads(home):
    """Thirty threads at once, each adding to a word; none is lost, and none is there afterwards that did not come."""
    adds = bytes.fromhex("f0ff0425") + dword(WORD)  # lock inc dword [WORD]
    wait = bytes.fromhex("833c25") + dword(WORD) + bytes([30, 0x75, 0xF6])  # cmp dword [WORD], 30; jne back
    home.put(CODE, wait + RET)
    home.put(SECOND, adds + COUNT)
    others = list(range(100, 130))
    answer = home.call(running=[home.conversation.thread_at(SECOND, tid) for tid in others])
    assert answer.reason == wire.RETURNED and home.word(WORD) & 0xFFFFFFFF == 30
    assert [s.tid for s in answer.threads] == [TID, *others]
    home.put(CODE, RET)
    assert [s.tid for s in home.call().threads] == [TID]


# Threads that wait


def test_waking_a_thread_that_waits_at_home(home):
    """It comes to the mirror when it is woken, with its own state, and goes on behind its call as if that had returned 0."""
    home.put(CODE, system_call("futex", WORD, WAKE, 1) + store_rax(RESULT) + await_word(FLAG) + RET)
    waiter = wait_at(home, SECOND, WAITER)
    home.put(SECOND + 2, store_rax(RESULT2) + set_word(FLAG) + COUNT)
    home.put(RESULT2, b"\xff" * 8)
    answer = home.call(waiting=[waiter])
    assert [m.tid for m in home.heard if isinstance(m, wire.AskThread)] == [WAITER]
    assert answer.reason == wire.RETURNED and {s.tid for s in answer.threads} == {TID, WAITER}
    assert (home.word(RESULT), home.word(RESULT2)) == (1, 0)
    regs = registers_of(answer, WAITER)
    assert SECOND + 2 < regs.rip < THIRD and (regs.rcx, regs.r11) == (SECOND + 2, regs.r11)


def test_nobody_is_woken(home):
    """Other words and other bits wake nobody, and nobody is asked for; the one that waits stays at home."""
    wakes = [(WORD + 4, WAKE, 5, 0), (WORD, futex.WAKE_BITSET | futex.PRIVATE, 5, 0)]
    waiter = wait_at(home, SECOND, WAITER)
    regs = Registers.unpack(waiter.registers)
    regs.rsi, regs.r9 = futex.WAIT_BITSET | futex.PRIVATE, 2
    waiter.registers = regs.pack()
    calls = system_call("futex", *wakes[0][:3]) + store_rax(RESULT)
    calls += system_call("futex", *wakes[1][:3], 0, 0, 4) + store_rax(RESULT2)
    home.put(CODE, calls + RET)
    answer = home.call(waiting=[waiter])
    assert (home.word(RESULT), home.word(RESULT2)) == (0, 0)
    assert [s.tid for s in answer.threads] == [TID] and not [m for m in home.heard if isinstance(m, wire.AskThread)]


def test_in_the_order_of_waiting(home):
    """Of threads that wait at home those come first that were told first, as many as are woken."""
    first, second = wait_at(home, SECOND, WAITER2), wait_at(home, THIRD, WAITER)
    for rip in (SECOND, THIRD):
        home.put(rip + 2, set_word(FLAG) + COUNT)
    home.put(CODE, system_call("futex", WORD, WAKE, 1) + await_word(FLAG) + RET)
    answer = home.call(waiting=[first, second])
    assert [s.tid for s in answer.threads] == [TID, WAITER2]
    home.put(FLAG, dword(0))
    # Told again, the first has come home and waits no longer.
    home.put(CODE, system_call("futex", WORD, WAKE, 9) + store_rax(RESULT) + await_word(FLAG) + RET)
    answer = home.call(waiting=[second])
    assert [s.tid for s in answer.threads] == [TID, WAITER] and home.word(RESULT) == 1


def test_told_once(home):
    """Who waits is as in the last call when nothing is said about it."""
    home.put(CODE, RET)
    waiter = wait_at(home, SECOND, WAITER)
    home.put(SECOND + 2, set_word(FLAG) + COUNT)
    home.call(waiting=[waiter])
    home.put(CODE, system_call("futex", WORD, WAKE, 1) + await_word(FLAG) + RET)
    assert [s.tid for s in home.call(waiting=None).threads] == [TID, WAITER]


def test_waiting_and_waking_in_the_mirror(home):
    """One thread waits there, another one wakes it there: home is asked nothing, and hears of it by where they stand."""
    wait = system_call("futex", WORD, WAIT, 0) + store_rax(RESULT) + bytes.fromhex("833c25") + dword(WORD) + b"\0\x74"
    home.put(CODE, wait + bytes([(-len(wait) - 1) & 0xFF]) + RET)
    home.put(SECOND, set_word(WORD) + system_call("futex", WORD, WAKE, 9) + COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert answer.reason == wire.RETURNED and home.word(RESULT) in (0, EAGAIN)
    assert not [m for m in home.heard if isinstance(m, wire.AskThread)]


def test_a_thread_that_still_waits(home):
    """A thread that waits in the mirror when the call ends comes home to before its call, which it makes anew there."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, set_word(FLAG) + system_call("futex", WORD, WAIT, 0) + COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    regs = registers_of(answer, OTHER)
    assert answer.reason == wire.RETURNED and SECOND <= regs.rip < SECOND + 40
    behind = SECOND + len(set_word(FLAG) + system_call("futex", WORD, WAIT, 0))
    assert regs.rip != behind, "not behind a call that has not ended"
    if regs.rip == behind - 2:
        assert regs.rax == NUMBERS["futex"] and (regs.rdi, regs.rsi, regs.rdx) == (WORD, WAIT, 0)


def test_another_value(home):
    """Who expects another value does not wait (futex(2): EAGAIN)."""
    home.put(CODE, system_call("futex", WORD, WAIT, 7) + store_rax(RESULT) + RET)
    assert home.call().reason == wire.RETURNED and home.word(RESULT) == EAGAIN


@pytest.mark.parametrize(("whole", "nanoseconds"), [(0, 0), (0, 20_000_000)])
def test_a_wait_with_an_end(home, whole, nanoseconds):
    """Beside a thread that runs, a wait ends when its time is over (futex(2): ETIMEDOUT)."""
    home.put(TIME, whole.to_bytes(8, "little") + nanoseconds.to_bytes(8, "little"))
    home.put(CODE, system_call("futex", WORD, WAIT, 0, TIME) + store_rax(RESULT) + RET)
    home.put(SECOND, COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert answer.reason == wire.RETURNED and home.word(RESULT) == ETIMEDOUT


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("raw", [b"\xff" * 16, bytes(8) + b"\xff" * 8], ids=["before zero", "too many nanoseconds"])
def test_a_wait_with_a_time_that_is_none(home, raw, value):
    """It is home that refuses a bad time, whether the thread would have waited or not."""
    home.put(TIME, raw)
    home.put(CODE, system_call("futex", WORD, WAIT, value, TIME) + RET)
    home.put(SECOND, COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert (answer.reason, answer.tid) == ("syscall:futex", TID)


def test_everybody_waits(home):
    """When all threads of the mirror wait, only home can end that."""
    wait = system_call("futex", WORD, WAIT, 0)
    for at in (CODE, SECOND):
        home.put(at, wait)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert (answer.reason, answer.tid) == ("syscall:futex", TID)
    assert [registers_of(answer, tid).rip for tid in (TID, OTHER)] == [at + len(wait) - 2 for at in (CODE, SECOND)]


def test_everybody_yields_or_spins(home):
    """Threads that yield to each other or spin, and change nothing, do so for ever: the call goes home."""
    home.put(CODE, YIELD_FOR_EVER)
    home.put(SECOND, bytes.fromhex("f390ebfc"))  # pause; jmp
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)], seconds=30.0)
    assert answer.reason == "stuck"


def test_spinning_at_the_edge_of_what_is_there(home):
    """Code at the end of a page is looked at though the next page is missing: nobody waits for that one."""
    code = Area(0x10000000, 0x10002000, 5, 0, "more")
    home.memory[code.start] = (b"\xeb\xfe").rjust(0x1000, b"\xcc")
    home.put(CODE, b"\xe9" + dword(code.start + 0xFFE - CODE - 5))  # jmp
    sent = pages.normalise([(CODE, CODE + 0x1000), (code.start, code.start + 0x1000), (RSP & -4096, (RSP & -4096) + 4096)])
    answer = home.call(delta=LayoutDelta([], [code]), pages=pages.pack(sent), seconds=30.0)
    assert answer.reason == "stuck" and registers_of(answer).rip == code.start + 0xFFE


def test_one_of_them_works(home):
    """A thread that works may end the others' spinning: the call goes on to its deadline."""
    home.put(CODE, bytes.fromhex("f390ebfc"))
    home.put(SECOND, COUNT)
    assert home.call(running=[home.conversation.thread_at(SECOND, OTHER)], seconds=0.5).reason == "timeout"


YIELD_FOR_EVER = system_call("sched_yield") + bytes.fromhex("ebf7")
ASK_FOR_EVER = system_call("gettid") + bytes.fromhex("ebf7")


def test_threads_that_stop_all_the_time(home):
    """While they do, recalls are heard, we say that we live, and the deadline holds."""
    home.put(CODE, ASK_FOR_EVER)
    home.put(SECOND, ASK_FOR_EVER)
    others = [home.conversation.thread_at(SECOND, OTHER)]
    home.leave(running=others, seconds=30.0)
    assert isinstance(home.channel.receive()[0], wire.Beat)
    home.channel.send(wire.Recall(home.number))
    answer = home.await_end()
    assert isinstance(answer, wire.Answer) and answer.reason == "recall"
    assert home.call(running=others, seconds=0.2).reason == "timeout"


def test_yielding_between_work(home):
    """A thread that yields often and does something else each time is not stuck."""
    # mov ecx, 5000; push rcx; sched_yield; pop rcx; mov ebx, ecx; dec ecx; jnz to push
    count = b"\xb9" + dword(5000) + b"\x51" + system_call("sched_yield") + b"\x59" + bytes.fromhex("89cb") + bytes.fromhex("ffc9")
    home.put(CODE, count + b"\x75" + bytes([(5 - len(count) - 2) & 0xFF]) + RET)
    assert home.call(seconds=30.0).reason == wire.RETURNED


@pytest.mark.parametrize("operation", ["wait", "wake", "mmap"])
def test_not_alone(home, operation):
    """When others wait or run at home unseen, futexes and the layout are home's."""
    code = {"wait": system_call("futex", WORD, WAIT, 0), "wake": system_call("futex", WORD, WAKE, 1), "mmap": system_call("mmap", 0, 4096, 3, 0x22)}
    home.put(CODE, code[operation] + RET)
    answer = home.call(alone=False)
    assert answer.reason == ("syscall:mmap" if operation == "mmap" else "syscall:futex")
    assert registers_of(answer).rip == CODE + len(code[operation]) - 2


def test_a_futex_nowhere(home):
    """A word that does not exist, or that others may share, is home's to look at."""
    for address, operation in ((0x10000, WAIT), (0x10000, WAKE), (0x700000, WAIT), (DATA + 2, WAKE)):
        home.put(CODE, system_call("futex", address, operation, 1) + RET)
        assert home.call().reason == "syscall:futex", hex(address)


def test_memory_that_is_not_there(home):
    """What the kernel would not read or write for a thread is met at home, and nobody waits for it here."""
    nothing = DATA + 0x5000
    del home.memory[nothing]
    asks = [("rt_sigprocmask", 0, address, 0, 8) for address in (nothing, 0x700000, 0x20000, 0x10000, 0xFFFFF000)]
    asks += [("rt_sigprocmask", 0, 0, address, 8) for address in (nothing, 0x700000, 0x10000, CODE + 0x800, 0xFFFFF000)]
    asks += [("futex", nothing, WAIT, 0), ("futex", WORD, WAIT, 0, nothing), ("futex", WORD, WAIT, 0, 0xFFFFF000)]
    for name, *arguments in asks:
        home.put(CODE, system_call(name, *arguments) + RET)
        assert home.call().reason == f"syscall:{name}", [hex(a) for a in arguments]


@pytest.mark.parametrize("address", [U64, U64 - 7, U64 & ~0xFFF, 1 << 47, (1 << 47) - 4, 1 << 63])
def test_memory_beyond_user_space(home, address):
    """An address that nobody has is refused at home, without a question for its page."""
    home.put(CODE, b"\x0f\x05" + RET)
    for name, values in (
        ("rt_sigprocmask", {"rsi": address, "rdx": 0, "r10": 8}), ("rt_sigprocmask", {"rsi": 0, "rdx": address, "r10": 8}),
        ("futex", {"rdi": address & ~3, "rsi": WAIT, "rdx": 0}), ("futex", {"rdi": address & ~3, "rsi": WAKE, "rdx": 1}),
        ("futex", {"rdi": WORD, "rsi": WAIT, "rdx": 0, "r10": address}),
    ):  # fmt: skip
        home.heard.clear()
        thread = home.conversation.thread_at(CODE, **{"rax": NUMBERS[name], "rdi": 0, **values})
        assert home.call(thread=thread).reason == f"syscall:{name}", values
        assert all(m.end < 1 << 47 for m in home.heard if isinstance(m, wire.Fetch))


@pytest.mark.parametrize("delay", range(0, 400, 20))
def test_coming_home_beside_a_system_call(home, delay):
    """A thread that is in a system call of its own, which misses a page, when the call comes home is stopped in time."""
    # mov ecx, delay; dec ecx; jnz back
    count = b"\xb9" + dword(delay + 1) + bytes.fromhex("ffc975fc")
    asks = b"".join(system_call("getrandom", DATA + 0x1000 * n, 8, 0) for n in range(2, 12))
    home.put(CODE, set_word(WORD) + count + RET)
    home.put(SECOND, await_word(WORD) + asks + COUNT)
    answer = home.call(running=[home.conversation.thread_at(SECOND, OTHER)])
    assert answer.reason == wire.RETURNED and SECOND <= registers_of(answer, OTHER).rip < FOURTH


# Signal masks


BLOCK, UNBLOCK, SETMASK = 0, 1, 2
SET, OLD = DATA + 0x100, DATA + 0x140


def mask_call(home, how: int, given: int, *, mask: int = 0, old: int = OLD, nbytes: int = 8) -> wire.Answer:
    home.put(SET, given.to_bytes(8, "little"))
    home.put(OLD, b"\xee" * 8)
    home.put(CODE, system_call("rt_sigprocmask", how, SET, old, nbytes) + store_rax(RESULT) + RET)
    return home.call(thread=with_mask(home, mask))


def with_mask(home, mask: int) -> wire.Standing:
    thread = home.conversation.thread_at(CODE)
    thread.mask = mask
    return thread


@pytest.mark.parametrize(
    ("how", "given", "before", "after"),
    [(BLOCK, 0x30, 0x1, 0x31), (SETMASK, 0x31, 0x1, 0x31), (UNBLOCK, 0x30, 0x1, 0x1), (BLOCK, 0x40101, 0, 0x1),
     (SETMASK, U64, 0, U64 & ~0x40100)],
)  # fmt: skip
def test_blocking_signals(home, how, given, before, after):
    """What is blocked more is noted, comes home with the thread, and is told as the old mask; KILL and STOP are never."""
    answer = mask_call(home, how, given, mask=before)
    assert (answer.reason, home.word(RESULT), home.word(OLD)) == (wire.RETURNED, 0, before)
    assert answer.threads[0].mask == after


@pytest.mark.parametrize(
    ("how", "given", "nbytes"), [(UNBLOCK, 0x1, 8), (SETMASK, 0, 8), (3, 0, 8), (BLOCK, 0, 4), (BLOCK, 0, 0)],
)
def test_unblocking_signals(home, how, given, nbytes):
    """One that is blocked at home may be waiting there; and nonsense is refused there."""
    answer = mask_call(home, how, given, mask=0x1, nbytes=nbytes)
    assert answer.reason == "syscall:rt_sigprocmask" and answer.threads[0].mask == 0x1
    assert home.word(OLD) == int.from_bytes(b"\xee" * 8, "little")


def test_blocked_here_and_unblocked_here(home):
    """What the call itself has blocked it may unblock."""
    home.put(SET, (0x30).to_bytes(8, "little"))
    home.put(CODE, system_call("rt_sigprocmask", BLOCK, SET, 0, 8) + system_call("rt_sigprocmask", UNBLOCK, SET, OLD, 8) + RET)
    answer = home.call(thread=with_mask(home, 0x1))
    assert answer.reason == wire.RETURNED and home.word(OLD) == 0x31 and answer.threads[0].mask == 0x1


# Other ends


def test_recall(home):
    """A call that is asked to come home does so from where it stands, with all its threads."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, COUNT)
    home.leave(running=[home.conversation.thread_at(SECOND, OTHER)], seconds=30.0)
    home.channel.send(wire.Recall(home.number))
    answer = home.await_end()
    assert isinstance(answer, wire.Answer) and (answer.reason, answer.tid) == ("recall", TID)
    assert {s.tid for s in answer.threads} == {TID, OTHER}
    home.put(CODE, RET)
    assert home.call().reason == wire.RETURNED


def test_discard(home):
    """What calls that are away have done is forgotten, and said to be; the next one finds what home has."""
    home.put(CODE, system_call("brk", BRK + 0x1000) + set_word(WORD, 5) + await_word(FLAG) + RET)
    home.put(SECOND, COUNT)
    home.leave(running=[home.conversation.thread_at(SECOND, OTHER)], seconds=30.0)
    home.channel.send(wire.Discard())
    message = home.await_end()
    assert isinstance(message, wire.Discarded)
    dropped = wire.runs(message.dropped)
    home.put(CODE, bytes.fromhex("8b0425") + dword(WORD) + store_rax(RESULT) + RET)  # mov eax, [WORD]
    answer = home.call(pages=pages.pack([(CODE, CODE + 0x1000)]))
    assert answer.reason == wire.RETURNED and home.word(RESULT) == 0 and not answer.journal and answer.brk == BRK
    assert all(run in [(DATA, DATA + 0x1000)] or run[0] >= BRK or run[1] <= RSP for run in dropped)


def test_discard_when_nothing_is_away(home):
    """An answer may have met the question on its way: then there is nothing to forget."""
    home.put(CODE, RET)
    home.call()
    home.channel.send(wire.Discard())
    assert home.await_end() == wire.Discarded(b"")


def test_contended_pages(home):
    """What home writes too is dropped whenever a call has come home, and said to be; the next call asks for it again."""
    data = pages.pack([(DATA, DATA + 0x1000)])
    home.put(CODE, set_word(WORD, 5) + RET)
    answer = home.call(contended=data)
    assert answer.contended == data and home.word(WORD) & 0xFFFFFFFF == 5
    home.heard.clear()
    home.put(WORD, dword(9))
    home.put(CODE, bytes.fromhex("8b0425") + dword(WORD) + store_rax(RESULT) + RET)
    answer = home.call(pages=pages.pack([(CODE, CODE + 0x1000)]))
    assert home.word(RESULT) == 9 and [m.address for m in home.heard if isinstance(m, wire.Fetch)] == [DATA]


# Two calls at once (`threads = "run"`)


def test_two_calls_at_once(home):
    """Each has its own return and comes home when it is there; the other one goes on."""
    home.put(CODE, await_word(FLAG) + RET)
    home.put(SECOND, set_word(WORD) + RET)
    home.leave(alone=False, seconds=30.0)
    second_stack = RSP - 0x800
    home.put(second_stack, RETURN.to_bytes(8, "little"))
    thread = home.conversation.thread_at(SECOND, OTHER, rsp=second_stack)
    stack = pages.pack([(RSP & -4096, (RSP & -4096) + 4096)])
    home.leave(thread=thread, frame=wire.Frame(RETURN, second_stack), alone=False, pages=stack)
    answer = home.await_end()
    assert isinstance(answer, wire.Answer) and (answer.number, answer.reason, answer.tid) == (2, wire.RETURNED, OTHER)
    assert {s.tid for s in answer.threads} == {TID, OTHER}
    home.channel.send(wire.Recall(1))
    answer = home.await_end()
    assert isinstance(answer, wire.Answer) and (answer.number, answer.reason, answer.tid) == (1, "recall", TID)
    assert [s.tid for s in answer.threads] == [TID, OTHER] or [s.tid for s in answer.threads] == [TID]
