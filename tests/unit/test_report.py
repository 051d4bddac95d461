import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.errors import JobFailed, UsageError
from radium.report import ProcessReport, Report, SplitReport, load

CONTRACT = {
    "name",
    "stance",
    "trap",
    "calls",
    "local_reasons",
    "went_home",
    "pages",
    "bytes",
    "seconds",
    "verified",
    "diverged",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def small_report() -> Report:
    report = Report("0.1.0", ["./app"], ["127.0.0.1:7000"], [ProcessReport(1, 0)], [])
    split = report.split("libblas.so.3:dgemm_", "mirror", "breakpoint")
    split.count_remote(100, 41, 50, 1000, 500, 0.5, 0.25)
    split.count_remote(10, 1, 50, 100, 500, 0.25, 0.125)
    split.count_local("guard")
    split.count_local("guard")
    return report


def test_written_keys_are_the_contract(tmp_path):
    """A written report has the keys that users' scripts rely on, with the sums of the calls."""
    small_report().write(tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    found = json.loads(text)
    split = found["splits"][0]
    assert text.endswith("}\n")
    assert found.keys() >= {"radium", "program", "acceptors", "processes", "splits"}
    assert found["processes"] == [{"pid": 1, "exit": 0}]
    assert split.keys() >= CONTRACT
    assert split["calls"] == {"remote": 2, "local": 2}
    assert split["local_reasons"] == {"guard": 2}
    assert split["pages"] == {"sent": 110, "paged_in": 42, "written_back": 100}
    assert split["bytes"] == {"out": 1100, "back": 1000}
    assert split["seconds"] == {"total": 0.75, "in_mirror": 0.375}


def test_written_report_loads_equal(tmp_path):
    """What was written is what is loaded."""
    small_report().write(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == small_report()


def test_split_is_found_again():
    """A split point that several processes share is counted in one place."""
    report = small_report()
    assert report.split("libblas.so.3:dgemm_", "mirror", "breakpoint") is report.splits[0]
    assert report.split("libblas.so.3:dsyrk_", "mirror", "breakpoint") is report.splits[1]


def test_names_that_are_not_utf8_can_be_written(tmp_path):
    """A program whose arguments are not UTF-8 still gets a report that loads."""
    report = small_report()
    report.program = [os.fsdecode(b"./app\xff")]
    report.write(tmp_path / "r.json")
    assert load(tmp_path / "r.json").program == ["./app?"]


def test_rewriting_replaces_whole(tmp_path):
    """A reader that has the old report open keeps the old one, and no temporary file is left."""
    path = tmp_path / "r.json"
    path.write_text("old")
    with path.open() as reader:
        small_report().write(path)
        assert reader.read() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_link_is_followed(tmp_path):
    """A report written to a symbolic link lands in the file that it names."""
    (tmp_path / "link").symlink_to(tmp_path / "r.json")
    small_report().write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "r.json") == small_report()


def test_device_is_written_and_not_replaced():
    """`--report /dev/null` leaves the device a device."""
    small_report().write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("path", ["/dev/full", "/nonexistent/r.json", "/"])
def test_unwritable_is_one_line(path):
    """A full disk, a missing folder or a folder as target is a JobFailed of one line with the path."""
    with pytest.raises(JobFailed) as caught:
        small_report().write(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def broken(**changes):
    return {**{"radium": "0", "program": [], "acceptors": [], "processes": [], "splits": []}, **changes}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "\udcff",
        json.dumps({"radium": "0.1.0"}),
        json.dumps(broken(program="./app")),
        json.dumps(broken(splits=[{"name": "x"}])),
        json.dumps(broken(processes=[{"pid": -1, "exit": None}])),
        "[" * 100000,
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text):
    """A file that is not a report is a UsageError of one line with the path."""
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    """A report that is not there is a UsageError, not an OSError."""
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(UsageError):
        load("a\0b")


def test_unknown_keys_are_ignored(tmp_path):
    """A report of a newer radium with more keys loads."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps(broken(weather="fine")))
    assert load(path).splits == []


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "r.json"


def load_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        load(path)
    except UsageError:
        return


@given(content=st.binary(max_size=200))
def test_bytes_are_loaded_or_refused(shared_path, content):
    """No bytes make load raise anything but UsageError."""
    load_or_refuse(shared_path, content)


@given(key=st.sampled_from(["processes", "splits", "program", "notes"]), value=JSON)
def test_wrong_types_are_refused(shared_path, key, value):
    """No JSON value in the place of another makes load raise anything but UsageError."""
    load_or_refuse(shared_path, json.dumps(broken(**{key: value})).encode("utf-8", "surrogatepass"))


@given(key=st.sampled_from(sorted(CONTRACT)), value=JSON)
def test_wrong_split_values_are_refused(shared_path, tmp_path_factory, key, value):
    """No JSON value within a split point makes load raise anything but UsageError."""
    small_report().write(shared_path)
    found = json.loads(shared_path.read_text())
    found["splits"][0][key] = value
    load_or_refuse(shared_path, json.dumps(found).encode("utf-8", "surrogatepass"))


def test_verified_calls_are_counted():
    """The first difference is kept; calls that could not be compared are counted by reason."""
    split = SplitReport.start("libm.so.6:sin", "mirror", "breakpoint")
    for difference in ("", "first", "second"):
        split.count_verified(difference)
    split.count_unverified("syscall:write")
    split.count_unverified("syscall:write")
    assert (split.verified, split.diverged, split.difference) == (3, 2, "first")
    assert split.unverified == {"syscall:write": 2}
