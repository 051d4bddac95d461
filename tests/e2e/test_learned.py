"""Working sets that a profile brings: the first call gets along what an earlier run's calls had to fetch."""

import json
import sys

from found import findings
from harness import TARGETS

from radium.core.places import Place
from radium.profiles.schema import loads
from radium.tracer.discovery.findings import Candidate
from radium.tracer.discovery.profile_text import text

SVD = [sys.executable, TARGETS / "python" / "svd.py"]
PLAIN = '[[split]]\npython = "numpy.linalg:svd"\n'


def with_places(places):
    entries = "".join(f'  {{ mapping = "{name}", offset = {at}, bytes = {nbytes} }},\n' for name, at, nbytes in places)
    return f"{PLAIN}working_set = [\n{entries}]\n"


def test_first_call_with_a_learned_working_set(work, tmp_path):
    """Another run of the program, its memory elsewhere, fetches few of the pages on demand that the first one had to."""
    plain, learned = tmp_path / "plain.toml", tmp_path / "learned.toml"
    plain.write_text(PLAIN)
    taught = tmp_path / "taught.json"
    told = [sys.executable, TARGETS.parent / "learn.py", taught, "--split", plain, "--report", tmp_path / "r", "--", *SVD]
    assert work.run_whole(told).exit == 0
    places = json.loads(taught.read_text())["python:numpy.linalg:svd"]
    learned.write_text(with_places(places))
    assert loads(learned.read_text(), "learned.toml").splits[0].working_set == tuple(Place(*place) for place in places)
    before, after = work.same(SVD, plain), work.same(SVD, learned)
    fetched = [result.split("svd")["first_call"]["paged_in"] for result in (before, after)]
    assert fetched[1] < fetched[0] / 2, fetched


def test_places_that_are_wrong(work, tmp_path):
    """What is not mapped, or other than it was, is worth nothing and harms nothing."""
    wrong = [("gone.so.3", 0, 8192), ("heap", 1 << 40, 1 << 30), ("libc.so.6", -(1 << 46), 4096), ("stack", 1 << 30, 1 << 20)]
    path = tmp_path / "wrong.toml"
    path.write_text(with_places(wrong))
    assert work.same(SVD, path).split("svd")["calls"]["remote"] == 4


def test_the_written_profile_is_taken_as_it_is(work, tmp_path):
    """By `radium profiles check` and by `radium run`, with which the program does what it does without."""
    svd = Candidate(
        "python:numpy.linalg:svd", "", "numpy.linalg:svd", 0.9, 0.1, verdict="with guard", guard="arg0.nbytes >= 100_000",
        working_set=[Place("heap", 0, 16384), Place("stack", -8192, 16384)],
    )  # fmt: skip
    path = tmp_path / "split.toml"
    path.write_text(text(findings(candidates=[svd])))
    checked = work.radium("profiles", "check", path)
    assert (checked.exit, checked.stdout) == (0, f"{path}: ok, 1 split")
    assert work.same(SVD, path).split("svd")["local_reasons"].get("guard", 0) == 0
