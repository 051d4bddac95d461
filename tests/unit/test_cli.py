import os
import subprocess
import sys
import types

import pytest

from radium import __version__, cli
from radium.errors import AcceptorLost, JobFailed, NotPossible, ProfileError, UsageError
from radium.report import Report


@pytest.fixture
def command(monkeypatch):
    """A command `radium fake` whose body the test sets."""

    def install(body):
        def add_parser(subparsers):
            parser = subparsers.add_parser("fake")
            parser.add_argument("--speed", type=int)
            parser.set_defaults(run=body)

        monkeypatch.setitem(cli.COMMANDS, "fake", "a command of the test")
        monkeypatch.setitem(sys.modules, "radium.commands.fake", types.SimpleNamespace(add_parser=add_parser))

    return install


def raising(exc):
    def body(_args):
        raise exc

    return body


def radium(*argv, cwd):
    return subprocess.run([sys.executable, "-m", "radium", *argv], cwd=cwd, capture_output=True, text=True, check=False)


def test_command_decides_the_exit_code(command):
    """The exit code is the command's own answer."""
    command(lambda args: args.speed)
    assert cli.main(["fake", "--speed", "17"]) == 17


@pytest.mark.parametrize(
    "exc, code",
    [
        (JobFailed("broke"), 1),
        (AcceptorLost("broke"), 1),
        (UsageError("broke"), 2),
        (ProfileError("broke"), 2),
        (NotPossible("broke"), 3),
    ],
)
def test_error_class_decides_the_exit_code(command, capsys, exc, code):
    """An error is one line on stderr and the exit code of its class."""
    command(raising(exc))
    assert cli.main(["fake"]) == code
    assert capsys.readouterr() == ("", "radium: broke\n")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["fake", "--speed", "fast"],
        ["fake", "--spee", "1"],
        ["fake", "x"],
        ["--bogus", "fake"],
        ["--", "x"],
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(command, capsys, argv):
    """Wrong usage exits 2 with one line that names the help, and no usage dump."""
    command(lambda args: 0)
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("radium: ")
    assert err.count("\n") == 1
    assert "--help`" in err


def test_version(capsys):
    """--version names the version on stdout."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"radium {__version__}\n"


def test_help_lists_every_command(capsys):
    """--help lists all commands without loading any of them."""
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_registered_commands_exist(capsys, name):
    """Every command of the list can be loaded and helps."""
    assert cli.main([name, "--help"]) == 0
    assert f"radium {name}" in capsys.readouterr().out


def test_interrupt_is_no_traceback(command, capsys):
    """Ctrl-C exits 130 without a word."""
    command(raising(KeyboardInterrupt()))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr() == ("", "")


def test_bug_is_one_line(command, capsys, monkeypatch):
    """An exception nobody expected is one line, and its traceback is there for those who ask."""
    command(raising(ZeroDivisionError("division\nby zero")))
    monkeypatch.delenv("RADIUM_DEBUG", raising=False)
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err == (
        "radium: internal error: ZeroDivisionError: division by zero (set RADIUM_DEBUG=1 for the traceback)\n"
    )
    monkeypatch.setenv("RADIUM_DEBUG", "1")
    assert cli.main(["fake"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_missing_dependency_breaks_only_its_command(monkeypatch, capsys):
    """A command whose dependency is not installed says which, and the others work."""

    def refuse(name):
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setattr(cli.importlib, "import_module", refuse)
    assert cli.main(["explain", "x.json"]) == 3
    assert "needs the Python package rich" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0


def test_version_loads_no_command(tmp_path):
    """`radium --version` is quick: neither commands nor their dependencies are imported for it."""
    code = "import sys, radium.cli; radium.cli.main(['--version']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"rich", "msgspec", "ptrace", "radium.commands.explain"} & set(loaded.stdout.split())


def test_module_is_the_command(tmp_path):
    """`python -m radium` is `radium`, exit code and all."""
    answer = radium("explain", "none.json", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("radium: none.json: cannot be read")


def test_reader_that_leaves_is_no_error(tmp_path):
    """A reader of stdout that goes away ends the command quietly, as in `radium explain r.json | head -1`."""
    Report("0.1.0", ["x"] * 100_000, [], [], []).write(tmp_path / "r.json")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        argv = [sys.executable, "-m", "radium", "explain", "r.json"]
        answer = subprocess.run(argv, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (141, "")
