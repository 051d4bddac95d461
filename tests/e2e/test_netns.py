"""Two network namespaces joined by veth stand for two hosts."""

import json
import os
import subprocess
import sys

import pytest
from harness import remote_of

pytestmark = pytest.mark.root


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    return done.returncode == 0


@pytest.fixture
def hosts():
    """Names of two namespaces: 10.99.0.1 (initiator) and 10.99.0.2 (acceptor)."""
    names = [f"radium-i{os.getpid()}", f"radium-a{os.getpid()}"]
    ends = [f"ri{os.getpid() % 100000}", f"ra{os.getpid() % 100000}"]
    if not ip("netns", "add", names[0]):
        pytest.skip("needs network namespaces (ip netns add)")
    try:
        both = list(zip(names, ends, strict=True))
        steps = [
            ("netns", "add", names[1]),
            ("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1]),
            *(("-n", n, "addr", "add", f"10.99.0.{i}/24", "dev", e) for i, (n, e) in enumerate(both, 1)),
            *(("-n", n, "link", "set", e, "up") for n, e in both),
            *(("-n", n, "link", "set", "lo", "up") for n in names),
        ]
        for step in steps:
            if not ip(*step):
                pytest.skip(f"needs veth: ip {' '.join(step)}")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def test_two_hosts(build, work, profile, hosts, tmp_path):
    """A program on one host is attached there, and its calls run on the other."""
    initiator, acceptor_host = hosts
    token = tmp_path / "token"
    token.write_text("a-long-enough-secret-token\n")
    token.chmod(0o600)
    acceptor = work.serve(
        "--token-file", token, listen="10.99.0.2:0", prefix=["ip", "netns", "exec", acceptor_host]
    )
    program = [build("sum", library="sum"), 2]
    whole = work.run_whole(program)
    target = work.start(["ip", "netns", "exec", initiator, *program], hold=True)
    report = tmp_path / "r.json"
    radium = [sys.executable, "-m", "radium", "attach", "--pid", target.pid, "--split", profile("sum")]
    where = ["--acceptor", acceptor.address, "--token-file", token, "--report", report]
    session = work.popen(["ip", "netns", "exec", initiator, *radium, *where], pass_stdin=False)
    session.err.wait_for("radium: attached to")
    target.release()
    assert target.check_success() == whole.stdout
    assert session.wait() == 0, session.err.tail()
    assert remote_of(json.loads(report.read_text()), "sum_words") == 5
