import argparse
import json
import os

import pytest

from radium.commands import doctor
from radium.commands.doctor import PROBES, Check, Gap, Probe, abilities, examine
from radium.errors import RemoteFault


def raising(exc):
    def find():
        raise exc

    return find


def probe(find, needed_by=()):
    return Probe("thing", "purpose", needed_by, "mend it", find)


@pytest.mark.parametrize("exc", [Gap("gone"), OSError(1, "gone"), ImportError("gone"), RemoteFault("gone")])
def test_failure_is_a_state(exc):
    """Whatever a probe meets is a finding with its mend: missing when a command needs it, degraded when none does."""
    needed, optional = examine(probe(raising(exc), ("serve",))), examine(probe(raising(exc)))
    assert (needed.state, needed.detail, needed.mend) == ("missing", "gone", "mend it")
    assert (optional.state, optional.detail, optional.mend) == ("degraded", "gone", "mend it")


def test_ok_needs_no_mending():
    """A feature that works has no command beside it."""
    check = examine(probe(lambda: "works"))
    assert (check.state, check.detail, check.mend) == ("ok", "works", "")


def test_gap_may_say_more():
    """A probe that knows better overrides the usual state and mend."""
    check = examine(probe(raising(Gap("partly", mend="do this", state="degraded")), ("serve",)))
    assert (check.state, check.mend) == ("degraded", "do this")


def test_missing_takes_only_what_needs_it():
    """A command is lost by a missing feature that it needs, not by a degraded one, nor by that of another command."""
    lost, weak = probe(str, ("serve",)), probe(str, ("attach",))
    assert abilities([Check(lost, "missing", "", ""), Check(weak, "degraded", "", "")]) == {
        "attach": True,
        "run": True,
        "serve": False,
    }


def test_json_tells_every_probe(capsys):
    """--json has every probe once, each gap with its mend, and the exit code says whether attach and serve can work."""
    code = doctor.run(argparse.Namespace(json=True))
    found = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in found["checks"]] == [probe.name for probe in PROBES]
    for check in found["checks"]:
        assert check["state"] in ("ok", "degraded", "missing")
        assert check["detail"]
        assert bool(check["mend"]) == (check["state"] != "ok"), check
    assert found["machine"]["kernel"] == os.uname().release
    assert code == (0 if found["can"]["attach"] and found["can"]["serve"] else 3)


def test_table_tells_every_probe(capsys):
    """The table for people has a line per probe, and a verdict per command."""
    doctor.run(argparse.Namespace(json=False))
    out = capsys.readouterr().out
    assert all(probe.name in out for probe in PROBES)
    assert "attach can" in out.lower() or "attach CANNOT" in out


def test_probing_leaves_nothing(capfd):
    """After probing, no child and no descriptor is left."""
    before = os.listdir("/proc/self/fd")
    for each in PROBES:
        examine(each)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
