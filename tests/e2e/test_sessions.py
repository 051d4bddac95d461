"""What passes between initiator and acceptor: handshake, deadlines, frames, and whose kernel it is."""

import json
import re
import socket
import sys
import threading

import pytest

from radium import __version__
from radium.channel import Channel
from radium.core import wire
from tests.harness import remote_of

# Runs the command line with something watched or changed first; what it found out goes to stderr at the end.
WATCHED = """
import atexit, json, sys
found = {}
atexit.register(lambda: print("found", json.dumps(found), file=sys.stderr))
%s
from radium.cli import main
sys.exit(main())
"""
COUNT_STOPS = """
from radium.tracer.stops import Threads
stop_all = Threads.stop_all
found["stops"] = 0
def counted(self):
    found["stops"] += 1
    stop_all(self)
Threads.stop_all = counted
"""
COUNT_FRAMES = """
from radium.channel import Channel
from radium.tracer.session import Session
send, receive, leave, come_home = Channel.send, Channel.receive, Session._go_out, Session._come_home
def counted_send(self, *args):
    found["sent"] = found.get("sent", 0) + 1
    send(self, *args)
def counted_receive(self):
    found["received"] = found.get("received", 0) + 1
    return receive(self)
def counted_leaving(self, *args):
    found["sent"] = found["received"] = 0
    leave(self, *args)
def counted_coming_home(self, *args):
    found["of_the_last_call"] = found["sent"], found["received"]
    come_home(self, *args)
Channel.send, Channel.receive = counted_send, counted_receive
Session._go_out, Session._come_home = counted_leaving, counted_coming_home
"""
FOREIGN_KERNEL = """
from radium.tracer.home import Home
vdso = Home.vdso
Home.vdso = lambda self: vdso(self)[:-1] + b"x"
"""
HOSTILE = """
from radium.core.mapping import LayoutCall
from radium.tracer.session import Session
take = Session._take
def hostile(self, channel, call, answer, nbytes):
    kernels = self.tracee.home.special()[0]
    answer.journal.append(LayoutCall("munmap", (kernels.start, kernels.end - kernels.start, 0, 0, 0, 0), 0))
    return take(self, channel, call, answer, nbytes)
Session._take = hostile
"""
FOREIGN_CPU = """
from radium.core.xstate import Component, translate
from radium.linux import cpuid, ptrace
from radium.tracer import tracee
own = cpuid.state_components()
foreign = [Component(c.number, c.offset + 64, c.nbytes) for c in own]
get, put = ptrace.xstate, ptrace.set_xstate
def foreign_xstate(tid):
    state = get(tid)
    return translate(state, own, foreign, state + bytes(64))
ptrace.xstate = foreign_xstate
ptrace.set_xstate = lambda tid, state: put(tid, translate(state, foreign, own, get(tid)))
tracee.state_components = lambda: foreign
"""


def run_watched(work, code, argv, profile):
    """`radium run` with `code` before it: (result, what was found)."""
    report = work.folder / "watched.json"
    command = [sys.executable, "-P", "-c", WATCHED % code, "run", "--split", profile, "--report", report, "--", *argv]
    result = work.finish(work.popen(command))
    found = re.search(r"^found (.*)$", result.stderr, re.M)
    result.report = json.loads(report.read_text())
    return result, json.loads(found[1])


def test_guard_comes_before_any_stop(build, work, profile):
    """A call that its guard rejects stops no other thread."""
    program = [build("null", library="null"), 500]
    result, found = run_watched(work, COUNT_STOPS, program, profile("null_guarded"))
    calls = result.report["splits"][0]["calls"]
    assert calls["local"] > 50
    assert found["stops"] <= calls["remote"] + 20


def test_steady_state_is_one_frame_each_way(build, work, profile):
    """When nothing is missing and the layout is as it was, a call costs one frame out and one back."""
    _, found = run_watched(work, COUNT_FRAMES, [build("null", library="null"), 20], profile("null"))
    assert found["of_the_last_call"] == [1, 1]


def test_an_acceptor_with_another_kernel(build, work, profile):
    """Where the vdso differs, the tracee's functions lead to the acceptor's, and clocks go on working in a call."""
    program = [build("syscalls", library="syscalls")]
    whole = work.run_whole(program)
    result, _ = run_watched(work, FOREIGN_KERNEL, program, profile("syscalls"))
    assert result.stdout == whole.stdout
    assert remote_of(result.report, "sys_clock") > 0


def test_an_acceptor_with_another_cpu(build, work, profile):
    """Where extended states have another size and order, vector registers arrive all the same, in both directions."""
    program = [build("abi", "-mavx2", library="abi")]
    whole = work.run_whole(program)
    result, _ = run_watched(work, FOREIGN_CPU, program, profile("abi"))
    assert result.stdout == whole.stdout
    assert all(not split["calls"]["local"] for split in result.report["splits"]), result.report["splits"]
    assert sum(split["calls"]["remote"] for split in result.report["splits"]) > 10


def test_the_kernels_own_mappings_are_not_an_acceptors(build, work, profile):
    """An answer that would unmap the vdso is thrown away, and the program's clock goes on."""
    program = [build("syscalls", library="syscalls")]
    whole = work.run_whole(program)
    result, _ = run_watched(work, HOSTILE, program, profile("syscalls"))
    assert result.stdout == whole.stdout
    assert any("conflict" in split["local_reasons"] for split in result.report["splits"])
    assert not any(split["calls"]["remote"] for split in result.report["splits"])


def test_deadline_of_a_call(build, work, profile):
    """A call that takes longer than --call-timeout is given up and runs at home."""
    split = work.same([build("slow", library="slow"), 2000], profile("slow"), "--call-timeout", 0.2)
    assert split.reasons("slow_fill") == {"timeout": 1}


@pytest.fixture
def refusing():
    """An acceptor that refuses whoever comes; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                channel = Channel(listener.accept()[0], "initiator")
            except OSError:
                return
            channel.receive()
            channel.send(wire.Refused("another version (0.0.9, protocol 0; here 9.9)", "install the same radium"))
            channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_acceptor_that_refuses(build, work, profile, refusing):
    """Its reason is told in one line, and the calls run at home."""
    split = work.same([build("null", library="null"), 20], profile("null"), acceptor=refusing)
    assert split.reasons("null_call") == {"no-acceptor": 20}
    assert split.stderr.count("another version") == 1


@pytest.mark.parametrize(
    "change, word",
    [
        ({"protocol": 99}, "another version"),
        ({"page_size": 16384}, "page size"),
        ({"cpu": ["sse2", "imaginary_isa"]}, "lacks imaginary_isa"),
    ],
)
def test_the_handshake_refuses(acceptor, change, word):
    """What does not fit is refused with its name, before anything is built."""
    host, port = acceptor.address.rsplit(":", 1)
    hello = {"protocol": wire.PROTOCOL, "radium": __version__, "token": "", "page_size": 4096, "cpu": []} | change
    channel = Channel(socket.create_connection((host, int(port))), "acceptor")
    channel.send(wire.Hello(**hello))
    answer, _ = channel.receive()
    channel.close()
    assert isinstance(answer, wire.Refused) and word in answer.reason
