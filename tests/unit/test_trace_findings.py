"""The file of what was found."""

import pytest
from found import findings

from radium.errors import JobFailed, UsageError
from radium.tracer.discovery.findings import DEEPEST, Node, load, pruned


def test_read_back(tmp_path):
    """What is written is what is read."""
    found = findings()
    found.write(tmp_path / "f.json")
    assert load(tmp_path / "f.json") == found


def test_names_that_are_not_utf8(tmp_path):
    """A file's name may be any bytes."""
    findings(program=["caf\udce9"]).write(tmp_path / "f.json")
    assert load(tmp_path / "f.json").program == ["caf?"]


def test_deep_tree(tmp_path):
    """A call tree of ten thousand frames is written as far as it can be read."""
    deep = Node("bottom", 1)
    for _ in range(10_000):
        deep = Node("f", 1, [deep])
    findings(tree=deep).write(tmp_path / "f.json")
    node, depth = load(tmp_path / "f.json").tree, 1
    while node.children:
        node, depth = node.children[0], depth + 1
    assert depth == DEEPEST


def test_pruned():
    """Nodes of few samples are left out with all below."""
    tree = Node("all", 9, [Node("a", 5, [Node("b", 1)]), Node("c", 2, [Node("d", 2)])])
    assert pruned(tree, 3) == Node("all", 9, [Node("a", 5)])


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, b'{"radium": 3}'])
def test_other_files(tmp_path, content):
    """What is something else is refused in one line with the file's name."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not what a trace has found") as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path):
    """Neither reading what is not there nor writing where nothing can be written is a traceback."""
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "gone.json")
    with pytest.raises(JobFailed, match="cannot write"):
        findings().write(tmp_path / "gone" / "f.json")
