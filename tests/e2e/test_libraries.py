"""Libraries that come late are split from their first call on, wherever they come to lie."""

import pytest


@pytest.fixture
def loads(build):
    """(program, library)"""
    program = build("loads", library="early", link=("-Wl,--as-needed", "-ldl"))
    return program, program.parent / "libearly.so"


@pytest.fixture
def unlinked(build, loads):
    """The same program, that is not linked with the library."""
    return build("loads")


@pytest.mark.parametrize("mode, nloads", [("elsewhere", 6), ("dlmopen", 3)])
def test_opened_while_running(unlinked, loads, work, profile, mode, nloads):
    """dlopen, dlmopen, and dlopen again elsewhere after dlclose: every call is remote, the library's own first ones too."""
    split = work.same([unlinked, mode, loads[1]], profile("early"))
    assert split.split("early_call")["calls"] == {"remote": 5 * nloads, "local": 0}, split.stderr


def test_preloaded(unlinked, loads, work, profile):
    """A library of LD_PRELOAD is split in the program, from its constructor on."""
    split = work.same(["/usr/bin/env", f"LD_PRELOAD={loads[1]}", unlinked, "preload"], profile("early"))
    assert split.remote("early_call") == 5


def test_preloaded_into_children(unlinked, loads, work, profile):
    """And in the children of a shell that has it from its environment."""
    script = 'LD_PRELOAD="$0" "$1" preload; LD_PRELOAD="$0" "$1" preload'
    split = work.same(["/bin/sh", "-c", script, loads[1], unlinked], profile("early"))
    assert split.remote("early_call") == 10


def test_opened_after_the_attach(build, work, profile):
    """A library that a program opens after radium has attached to it, closes and opens again."""
    library = build("null", library="null").parent / "libnull.so"
    target = work.start([build("dlopens"), library], hold=True)
    session = work.attach(target.pid, profile("dlopens"))
    target.release()
    target.check_success()
    calls = {split["name"]: split["calls"] for split in session.ended()["splits"]}
    assert calls["libnull.so:null_call"] == {"remote": 15, "local": 0}
