"""The System V psABI through a split call."""

import re

import pytest


@pytest.mark.parametrize("flags", [[], ["-O0"], ["-no-pie"]], ids=["O2", "O0", "no-pie"])
def test_arguments_and_results(build, work, profile, flags):
    """Arguments, results, kept registers, errno, TLS, rounding modes and flags are as without radium."""
    split = work.same([build("abi", *flags, library="abi"), 3], profile("abi"))
    called = {entry["name"].rpartition(":")[2]: entry["calls"] for entry in split.report["splits"]}
    expected = {"abi_small", "abi_large", "abi_varargs", "abi_long_double", "abi_stack", "abi_registers", "abi_errno",
                "abi_tls", "abi_rounded", "abi_x87", "abi_set_rounding", "abi_sse", "abi_int128"}  # fmt: skip
    for name in expected:
        assert called[name]["remote"] >= 3, (name, called[name])


def test_vectors(build, work, profile):
    """The upper halves of vector registers travel with the call, as far as this CPU has them."""
    split = work.same([build("abi", library="abi"), 2], profile("abi"))
    for name, line in (("abi_avx", "^avx "), ("abi_avx512", "^avx512 ")):
        if re.search(line, split.stdout, re.MULTILINE):
            assert split.remote(name) == 2, name
