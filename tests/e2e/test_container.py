"""A process in pid, mount and user namespaces of its own is attached from outside."""

import shutil
import subprocess

import pytest
from harness import READY, Snapshot, descendants, remote_of

pytestmark = pytest.mark.root

# The program and its library lie on a tmpfs that only the container's mount namespace has.
SCRIPT = """
set -e
mount -t tmpfs none {private}
cp {folder}/* {private}/
exec {private}/null 50
"""


@pytest.mark.parametrize("kinds", [["--pid", "--mount"], ["--pid", "--mount", "--user", "--map-root-user"]], ids=len)
def test_container(build, work, profile, tmp_path, kinds):
    """Library files are found through the tracee's own mount namespace, and calls are remote."""
    probe = ["unshare", "--fork", *kinds, "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip(f"needs {' '.join(probe)}")
    private = tmp_path / "private"
    private.mkdir()
    program = build("null", library="null")
    whole = work.run_whole([program, 50])
    script = SCRIPT.format(private=private, folder=program.parent)
    shell = work.start(["unshare", "--fork", *kinds, "--mount-proc", "sh", "-c", script], hold=True, ready=False)
    shell.out.wait_for(READY)
    (pid,) = descendants(shell.pid)
    assert not (private / "libnull.so").exists(), "the library can be seen from outside"
    before = Snapshot.of(pid, "libnull.so")
    session = work.attach(pid, profile("null"))
    session.detach()
    before.check_same(Snapshot.of(pid, "libnull.so"))
    session = work.attach(pid, profile("null"))
    shell.release()
    assert shell.check_success() == whole.stdout
    assert remote_of(session.ended(), "null_call") == 50
