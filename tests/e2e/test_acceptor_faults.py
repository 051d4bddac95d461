"""Whatever happens to the acceptor or the wire, the tracee's output is right."""

import random
import signal
import socket
import threading
import time

import pytest
from harness import Proxy, calls_made, poll_until, progress, remote_of

LOST = {"acceptor-lost", "no-acceptor", "timeout"}


@pytest.fixture
def target(build, work):
    running = work.start([build("longrun", library="work")])
    progress(running)
    return running


@pytest.fixture
def proxied(acceptor):
    proxies = []

    def proxy(*plans):
        proxies.append(Proxy(acceptor.address, plans))
        return proxies[-1]

    yield proxy
    for opened in proxies:
        opened.close()


def finish(target, session):
    report = session.detach()
    target.kill()
    target.check_success()
    return report


def test_no_acceptor(build, work, profile):
    """With nobody at the address every call is local, and says why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    split = work.same([build("null", library="null"), 20], profile("null"), acceptor=f"127.0.0.1:{port}")
    assert split.remote("null_call") == 0 and split.reasons("null_call") == {"no-acceptor": 20}
    assert "radium: " in split.stderr


@pytest.mark.parametrize(
    "noise",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b"\xff" * 4096, random.Random(1).randbytes(5000)],
    ids=["silent-close", "http", "zeros", "ones", "random"],
)
def test_garbage_on_the_port(build, work, profile, noise):
    """What answers on the port is not an acceptor: the calls are local, and radium says it in a line."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    try:
                        peer.sendall(noise)
                    except OSError:
                        continue

        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        split = work.same([build("null", library="null"), 5], profile("null"), acceptor=address)
    assert split.remote("null_call") == 0 and set(split.reasons("null_call")) <= LOST


def test_garbage_to_the_acceptor(build, work, profile, acceptor):
    """An acceptor that is sent garbage goes on serving others."""
    generator = random.Random(2)
    random_noise = [generator.randbytes(nbytes) for nbytes in (1, 7, 64, 9999)]
    for noise in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 100_000, *random_noise):
        with socket.create_connection(("127.0.0.1", acceptor.port), 5) as peer:
            try:
                peer.sendall(noise)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass
            except OSError:
                continue
    split = work.same([build("null", library="null"), 5], profile("null"), acceptor=acceptor)
    assert split.remote("null_call") == 5
    assert "Traceback" not in acceptor.running.err.tail()


def test_twenty_kills_of_the_sessions(target, work, profile, acceptor):
    """kill -9 of the acceptor's session at twenty random moments: output right, and calls are remote again after it."""
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    generator = random.Random(3)
    progress(target)
    for _ in range(20):
        time.sleep(generator.random() * 0.1)  # the random moment
        acceptor.kill_sessions()
    progress(target, steps=6)
    alive = acceptor.sessions()
    report = finish(target, session)
    assert alive, "no session was opened after the last kill"
    split = report["splits"][0]
    assert split["calls"]["remote"] > 0 and set(split["local_reasons"]) <= LOST


def test_acceptor_killed_and_back(target, work, profile, acceptor):
    """kill -9 of the whole acceptor: calls are local until it is back on its port, and then remote again."""
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    for _ in range(3):
        progress(target)
        acceptor.kill()
        made = calls_made(target)
        progress(target)
        assert calls_made(target) > made
        acceptor.restart()
        poll_until(acceptor.sessions, "the acceptor that is back is used again")
    progress(target)
    split = finish(target, session)["splits"][0]
    assert split["calls"]["remote"] > 0 and split["calls"]["local"] > 0 and set(split["local_reasons"]) <= LOST


def test_acceptor_stops_answering(target, work, profile, acceptor):
    """A stopped acceptor is noticed by its silence; calls go on at home."""
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    progress(target)
    acceptor.kill(signal.SIGSTOP)
    made = calls_made(target)
    progress(target, steps=3)
    assert calls_made(target) > made
    acceptor.kill(signal.SIGCONT)
    split = finish(target, session)["splits"][0]
    assert split["calls"]["local"] > 0 and set(split["local_reasons"]) <= LOST


def test_acceptor_drains(target, work, profile, acceptor):
    """SIGTERM lets the acceptor's running calls finish; the program goes on at home."""
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    progress(target)
    acceptor.running.kill(signal.SIGTERM)
    progress(target, steps=3)
    finish(target, session)


def bytes_of_a_run(work, profile, proxied, program):
    proxy = proxied()
    split = work.same(program, profile("work"), acceptor=proxy)
    assert remote_of(split.report, "work_mix") > 0
    return proxy.passed


def cuts(total, count):
    """The first bytes one by one, some of the frame headers, and then spread over all."""
    return sorted({0, 1, 3, 4, 5, 8, 9, 16, 17, *(1 + (total - 2) * i // count for i in range(count + 1))})


@pytest.mark.parametrize("direction", ["up", "down"])
def test_connection_ends_at_any_byte(build, work, profile, proxied, direction):
    """A connection that closes after any number of bytes costs the tracee nothing but time."""
    program = [build("threads", library="work"), "counters", 6]
    total = bytes_of_a_run(work, profile, proxied, program)[direction]
    for at in cuts(total, 4)[::2]:
        split = work.same(program, profile("work"), acceptor=proxied(*[(direction, at, "cut")] * 50))
        assert set(split.reasons("work_mix")) <= LOST, at


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
def test_connection_ends_at_many_bytes(build, work, profile, proxied, direction):
    """As above, for many more places."""
    program = [build("threads", library="work"), "counters", 6]
    total = bytes_of_a_run(work, profile, proxied, program)[direction]
    for at in cuts(total, 100):
        split = work.same(program, profile("work"), acceptor=proxied(*[(direction, at, "cut")] * 50))
        assert set(split.reasons("work_mix")) <= LOST, at


def test_connections_end_under_load(target, work, profile, acceptor, proxied):
    """Connection after connection ends at another byte, in one session; then one holds, and calls are remote."""
    generator = random.Random(4)
    sizes = [generator.randrange(1 << generator.randrange(4, 20)) for _ in range(12)]
    plans = [(generator.choice(["up", "down"]), nbytes, "cut") for nbytes in sizes]
    proxy = proxied(*plans)
    session = work.attach(target.pid, profile("work"), acceptor=proxy)
    poll_until(lambda: proxy.connections > len(plans), "a connection is left alone", 60)
    progress(target, steps=4)
    assert finish(target, session)["splits"][0]["calls"]["remote"] > 0


@pytest.mark.parametrize("direction", ["up", pytest.param("down", marks=pytest.mark.slow)])
def test_connection_stalls(build, work, profile, proxied, direction):
    """A wire that goes dead without closing is noticed by its silence."""
    program = [build("threads", library="work"), "counters", 4]
    total = bytes_of_a_run(work, profile, proxied, program)[direction]
    proxy = proxied((direction, total // 2, "stall"))
    split = work.same(program, profile("work"), acceptor=proxy)
    assert set(split.reasons("work_mix")) <= LOST


def test_second_acceptor_is_used(build, work, profile, acceptor):
    """With two acceptors named, the one that answers is used."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    extra = ("--acceptor", acceptor.address)
    split = work.same([build("null", library="null"), 10], profile("null"), *extra, acceptor=f"127.0.0.1:{port}")
    assert split.remote("null_call") > 0
