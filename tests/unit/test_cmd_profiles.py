"""radium profiles: what it prints."""

import argparse

import pytest

from radium.commands import profiles
from radium.errors import ProfileError
from radium.profiles import library

SPLIT = '[[split]]\nlibrary = "main"\nfunction = "f"\n'


def run(*argv):
    parser = argparse.ArgumentParser()
    profiles.add_parser(parser.add_subparsers())
    args = parser.parse_args(["profiles", *argv])
    return args.run(args)


def test_list(capsys):
    """Each library profile is listed with its title and its number of splits."""
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == library.names()
    assert "openssl-kdf   OpenSSL key derivation: PBKDF2 and scrypt (2 splits)" in lines


def test_show_prints_the_file(capsys):
    """What is shown is the file, byte for byte, so that it can be edited and used."""
    assert run("show", "blas") == 0
    assert capsys.readouterr().out == library.find("blas").read_text()


def test_check(capsys, tmp_path):
    """A sound file is said to be so."""
    path = tmp_path / "p.toml"
    path.write_text(SPLIT)
    assert run("check", str(path)) == 0
    assert capsys.readouterr().out == f"{path}: ok, 1 split\n"


def test_check_raises_the_problem(tmp_path):
    """A bad file's problem is raised for the command line to print."""
    path = tmp_path / "p.toml"
    path.write_text(SPLIT + "x = 1\n")
    with pytest.raises(ProfileError, match=f"{path}:4: unknown key `x`"):
        run("check", str(path))


@pytest.mark.parametrize("argv", [(), ("show",), ("unknown",)])
def test_usage(argv, capsys):
    """An action is needed, and for show and check what to act on."""
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
