"""Calls of native functions: whole and split do the same, and the calls were remote where they can be."""

import json
import os

import pytest
from harness import remote_total

from radium.linux import pagemap


def test_null_calls_are_remote(build, work, profile):
    """Every call of a function without a reason to stay is committed from the acceptor."""
    split = work.same([build("null", library="null"), 50], profile("null"))
    assert split.remote("null_call") == 50 and split.local("null_call") == 0


def test_report_is_as_the_interface_says(build, work, profile, acceptor):
    """The report has the keys of the interface, and its numbers fit the program."""
    program = build("null", library="null")
    report = work.same([program, 20], profile("null"), acceptor=acceptor).report
    assert set(report) >= {"radium", "program", "acceptors", "processes", "splits"}
    assert report["program"][0] == str(program) and report["acceptors"] == [acceptor.address]
    assert [process["exit"] for process in report["processes"]] == [0]
    split = report["splits"][0]
    assert split["name"] == "libnull.so:null_call"
    assert (split["stance"], split["trap"]) == ("mirror", "breakpoint")
    assert set(split) >= {"calls", "local_reasons", "went_home", "pages", "bytes", "seconds", "verified", "diverged"}
    assert set(split["pages"]) == {"sent", "paged_in", "written_back"} and set(split["bytes"]) == {"out", "back"}
    assert set(split["seconds"]) == {"total", "in_mirror"}
    assert split["seconds"]["total"] >= split["seconds"]["in_mirror"] > 0


@pytest.mark.parametrize(
    "flags",
    [["-no-pie"], ["-s"], ["-O0"], ["-fcf-protection=full"], ["-Wl,-z,now"], ["-Wl,--hash-style=sysv"], ["-fno-plt"]],
    ids=lambda flags: flags[0],
)
def test_ways_to_build(build, work, profile, flags):
    """Position-dependent, stripped, unoptimised and differently linked programs are split alike."""
    split = work.same([build("null", *flags, library="null"), 20], profile("null"))
    assert split.remote("null_call") == 20


def test_much_memory_is_read(build, work, profile):
    """A call that reads megabytes gets them right, and changed pages again after each change."""
    split = work.same([build("sum", library="sum"), 8], profile("sum"))
    assert split.remote("sum_words") == 5
    pages = split.split("sum_words")["pages"]
    assert 2048 <= pages["sent"] + pages["paged_in"] < 2 * 2048, "unchanged pages were sent again"


@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
def test_memory_that_cannot_be_watched(build, work, profile, tracking):
    """A droppable mapping (Linux 6.11; glibc 2.41 has one) takes no write-protection: its pages are the right ones all the same."""
    split = work.same([build("droppable", library="droppable")], profile("droppable"), "--tracking", tracking)
    assert split.remote("droppable_call") == 20


@pytest.mark.skipif(not pagemap.tells_guards(), reason="needs Linux 6.15")
@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
def test_guard_pages(build, work, profile, tracking):
    """Pages of a mapping that nobody may touch, as glibc 2.42 makes them below threads' stacks, are none in the mirror either."""
    split = work.same([build("guards", library="guards")], profile("guards"), "--tracking", tracking)
    assert split.remote("guards_call") >= 12


def test_memory_hint_saves_page_ins(build, work, profile):
    """What a profile's memory names is sent with the call, not paged in."""
    split = work.run_split([build("sum", library="sum"), 8], profile("sum"))
    assert split.split("sum_words")["pages"]["paged_in"] < 200


def test_first_instructions(build, work, profile):
    """A call is remote whatever instruction the function begins with."""
    split = work.same([build("entries", library="entries")], profile("entries"))
    for name in ("entry_push", "entry_load_rip", "entry_jmp_near", "entry_ret", "entry_endbr"):
        assert split.remote(name) == 3, split.split(name)


def test_first_instructions_passed_by(build, work, profile):
    """A call that its guard rejects passes the breakpoint with the first instruction's effect, whatever it is."""
    split = work.same([build("entries", library="entries"), 20], profile("entries_guarded"))
    for name in ("entry_push", "entry_load_rip", "entry_jmp_near", "entry_ret", "entry_loop"):
        assert split.remote(name) == 0 and split.reasons(name).get("guard", 0) >= 20


def test_guard(build, work, profile):
    """A guard that says no keeps the call at home and is counted as the reason."""
    split = work.same([build("null", library="null"), 200], profile("null_guarded"))
    assert split.remote("null_call") == 0 and split.reasons("null_call") == {"guard": 200}


def test_guard_reads_arguments(build, work, tmp_path):
    """A guard divides the calls by their arguments."""
    text = (
        '[[split]]\nlibrary = "libnull.so*"\nfunction = "null_call"\nsignature = "long null_call(long x)"\n'
        'guard = "x % 2 == 0 and x >= 10"\n'
    )
    path = tmp_path / "some.toml"
    path.write_text('name = "some"\ntitle = "Some"\n' + text)
    split = work.same([build("null", library="null"), 40], path)
    expected = sum(1 for i in range(40) if (i * 3 + 1) % 2 == 0 and i * 3 + 1 >= 10)
    assert split.remote("null_call") == expected and split.reasons("null_call") == {"guard": 40 - expected}


def test_several_profiles(build, work, profile):
    """--split may be given several times; each profile's functions are split."""
    split = work.same([build("null", library="null"), 10], profile("null"), "--split", profile("work"))
    assert split.remote("null_call") == 10


def test_ifunc(build, work, profile):
    """An IFUNC is trapped where its resolver's choice begins."""
    split = work.same([build("ifunc", library="ifunc")], profile("ifunc"))
    assert split.remote("ifunc_call") == 10


def test_aliases(build, work, profile):
    """Two names of one address are one split point: each call counts once."""
    split = work.same([build("ifunc", library="ifunc")], profile("alias"))
    assert remote_total(split.report) == 20


def test_dlopen(build, work, profile):
    """A library that is opened while running gets its split points, again after it was closed."""
    library = build("null", library="null").parent / "libnull.so"
    split = work.same([build("dlopens"), library], profile("dlopens"))
    assert split.remote("main_call") == 18
    assert split.remote("null_call") > 0


def test_recursion_and_callbacks(build, work, profile):
    """Inner calls are part of the outermost call, through recursion, other split functions and callbacks."""
    split = work.same([build("recursion", library="recursion")], profile("recursion"))
    assert split.remote("rec_fib") >= 12 and split.remote("rec_outer") == 1 and split.remote("rec_sort") >= 2
    assert split.remote("rec_deep") + split.local("rec_deep") >= 1


NESTED = """
name = "nested"
title = "nested"
[[split]]
library = "libnested.so*"
function = "nested_outer"
[[split]]
library = "libnested.so*"
function = "nested_inner"
outermost = false
"""


def test_inside_a_call_that_came_home(build, work, profile):
    """A split call inside one that runs at home is part of it, until that one has returned."""
    split = work.same([build("nested", library="nested")], profile("nested"), "--call-timeout", 0.05)
    assert split.reasons("nested_outer") == {"timeout": 7}
    assert split.reasons("nested_inner") == {"nested": 7}
    assert split.remote("nested_inner") == 3 * 2 and split.remote("nested_sum") == 1


def test_not_only_outermost(build, work, tmp_path):
    """outermost = false: it is a call of its own."""
    own = tmp_path / "own.toml"
    own.write_text(NESTED)
    split = work.same([build("nested", library="nested")], own, "--call-timeout", 0.05)
    assert split.reasons("nested_inner") == {}
    assert split.remote("nested_inner") == 7 + 3 * 2


def test_exceptions_leave_the_call(build, work, profile):
    """A C++ exception that leaves the split function is caught at home, with every destructor run once."""
    split = work.same([build("cppthrow", library="cppthrow")], profile("cppthrow"))
    assert split.remote("cpp_throw") >= 4


def test_longjmp_leaves_the_call(build, work, profile):
    """A longjmp out of the split function lands at home."""
    split = work.same([build("longjmps", library="longjmps")], profile("longjmps"))
    assert split.remote("jump_out") >= 5


def test_library_replaced_on_disk(build, work, profile, tmp_path):
    """A library that was replaced or deleted on disk since it was mapped is read as it is mapped."""
    original = build("null", library="null")
    program, library = tmp_path / "null", tmp_path / "libnull.so"
    program.write_bytes(original.read_bytes())
    program.chmod(0o755)
    library.write_bytes((original.parent / "libnull.so").read_bytes())
    target = work.start([program, 200], hold=True)
    fresh = tmp_path / "fresh.so"
    fresh.write_bytes(b"not ELF at all")
    os.replace(fresh, library)
    session = work.attach(target.pid, profile("null"))
    target.release()
    target.check_success()
    assert remote_total(session.ended()) == 200


def test_output_belongs_to_the_program(build, work, profile):
    """radium writes nothing to stdout, and with --quiet nothing to stderr when all is well."""
    program = build("null", library="null")
    split = work.same([program, 5], profile("null"), "--quiet")
    assert split.stderr == ""


def test_private_and_named_acceptor_do_the_same(build, work, profile, acceptor):
    """A call is remote with an acceptor of its own as with one that was started before."""
    command = [build("abi", library="abi"), 1]
    private, named = work.same(command, profile("abi")), work.same(command, profile("abi"), acceptor=acceptor)
    assert private.stdout == named.stdout
    assert private.remote("abi_large") == named.remote("abi_large") == 1


def test_explain_tells_a_report(build, work, profile):
    """`radium explain` reads what --report wrote, and names the split and its reason."""
    program = build("null", library="null")
    session = work.start_split([program, 5], profile("null_guarded"))
    work.finish(session.running)
    told = work.radium("explain", session.path).check_no_traceback()
    assert told.exit == 0 and "null_call" in told.stdout and "guard" in told.stdout


def test_report_is_written_when_the_folder_is_there_only(build, work, profile, tmp_path):
    """A report that cannot be written is one line on stderr; the program has run."""
    program = build("null", library="null")
    missing = tmp_path / "missing" / "r.json"
    ran = work.radium("run", "--split", profile("null"), "--report", missing, "--", program, 3).check_no_traceback()
    assert "missing" in ran.stderr and (ran.exit in {1, 2} or "EXIT-SUCCESS" in ran.stdout)


def test_report_on_a_full_disk(build, work, profile):
    """A full disk under --report is told in one line, before the program starts or after it has run."""
    program = build("null", library="null")
    ran = work.radium("run", "--split", profile("null"), "--report", "/dev/full", "--", program, 3).check_no_traceback()
    assert ran.stdout == "" or ran.stdout.endswith("EXIT-SUCCESS")
    assert "/dev/full" in ran.stderr and ran.exit


def test_report_is_json(build, work, profile):
    """The report is one JSON document."""
    session = work.start_split([build("null", library="null"), 3], profile("null"))
    work.finish(session.running)
    json.loads(session.path.read_text())
