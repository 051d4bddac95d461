"""redis-server as Debian has it: split functions of its executable and of a library, and forks for its snapshots."""

import shutil
import subprocess

import pytest
from harness import Session, poll_until, remote_of, remote_total

# Debian has the server's executable in redis-tools, under this name (the package redis-server would start a service).
SERVER, CLIENT = "redis-check-rdb", "redis-cli"
NROUNDS = 6


class Redis:
    """A server in a folder of its own, which it talks to nobody outside of."""

    def __init__(self, work, name):
        self.folder = work.folder / name
        self.folder.mkdir()
        self.socket = self.folder / "socket"
        options = ["--port", "0", "--save", "", "--enable-debug-command", "yes", "--unixsocket", self.socket]
        program = self.folder / "redis-server"
        program.symlink_to(shutil.which(SERVER))
        self.argv = [program, *options, "--dir", self.folder]

    def ask(self, *commands):
        """What the server answers to these lines."""
        done = subprocess.run(
            [CLIENT, "-s", self.socket], input="\n".join(commands), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_until_there(self):
        poll_until(self.socket.exists, "the server listens")
        return self


@pytest.fixture
def redis(work):
    """redis(name): a server that is yet to be started."""
    if not shutil.which(SERVER) or not shutil.which(CLIENT):
        pytest.skip("needs redis-tools")
    return lambda name: Redis(work, name)


def fill(server):
    server.ask(*(f"SET text{i} {'abcdefgh'[i:] * (60 + i)}" for i in range(4)))
    server.ask(*(f"PFADD visitors{i % 2} {' '.join(f'v{i}x{j}' for j in range(200))}" for i in range(6)))
    server.ask("RPUSH numbers " + " ".join(str(i * 7919 % 1000) for i in range(500)))


def work_on(server, number):
    """Commands whose functions are split, some of which change what is stored; a snapshot is taken at the same time."""
    server.ask("BGSAVE SCHEDULE")
    return server.ask(
        "BITOP XOR mixed text0 text1", f"SETBIT mixed {number} 1", "BITCOUNT mixed", "LCS text2 text3 LEN",
        "SORT numbers LIMIT 10 20", "SORT numbers DESC STORE sorted", "PFCOUNT visitors0 visitors1", "DEBUG DIGEST",
    )  # fmt: skip


def session_of(server):
    """From start to end: all that it says to the same questions. The last snapshot is complete."""
    fill(server)
    said = [work_on(server, number) for number in range(NROUNDS)]
    poll_until(lambda: "rdb_bgsave_in_progress:0" in server.ask("INFO persistence"), "the snapshots are taken")
    assert "rdb_last_bgsave_status:ok" in server.ask("INFO persistence")
    server.ask("BGSAVE")
    poll_until(lambda: "rdb_bgsave_in_progress:0" in server.ask("INFO persistence"), "the last snapshot is taken")
    assert "rdb_last_bgsave_status:ok" in server.ask("INFO persistence")
    return said


def test_snapshots(work, redis, profile):
    """A server that forks for snapshots between split calls answers as it does whole, and so does one that reads its snapshot."""
    whole = redis("whole")
    work.popen(whole.argv)
    expected = session_of(whole.wait_until_there())
    whole.ask("SHUTDOWN NOSAVE")

    server = redis("split")
    session = work.start_split(server.argv, profile("redis"))
    assert session_of(server.wait_until_there()) == expected
    server.ask("SHUTDOWN NOSAVE")
    report = session.ended(60)
    for name in ("bitopCommand", "bitcountCommand", "lcsCommand", "pfcountCommand"):
        assert remote_of(report, name) >= NROUNDS, report
    assert remote_of(report, "sortCommand") >= 2 * NROUNDS

    again = redis("again")
    shutil.copy(server.folder / "dump.rdb", again.folder)
    work.popen(again.argv)
    poll_until(lambda: "loading:0" in again.wait_until_there().ask("INFO persistence"), "the snapshot is read")
    assert again.ask("DEBUG DIGEST").strip() == expected[-1].splitlines()[-1]
    again.ask("SHUTDOWN NOSAVE")


def test_attached(work, redis, profile):
    """A server that runs already is attached and let go with snapshots on their way, and knows nothing of it."""
    server = redis("attached")
    running = work.popen(server.argv)
    fill(server.wait_until_there())
    before = work_on(server, 0)
    for _ in range(2):
        session: Session = work.attach(running.pid, profile("redis"))
        assert work_on(server, 0) == before
        assert remote_total(session.detach()) > 0
        assert work_on(server, 0) == before
    server.ask("SHUTDOWN NOSAVE")
    assert running.wait() == 0
