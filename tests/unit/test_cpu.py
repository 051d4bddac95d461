"""CPU features: what counts, and what an acceptor lacks."""

from hypothesis import given
from hypothesis import strategies as st

from radium.core import cpu
from radium.linux import procfs


def test_usable_of_this_machine():
    """The baseline of x86-64 is found on every machine, and flags that code cannot use are left out."""
    found = cpu.usable(procfs.cpu_flags())
    assert {"fpu", "tsc", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2"} <= set(found)
    assert not {"hypervisor", "nx", "svm", "vmx", "constant_tsc"} & set(found)
    assert found == sorted(set(found))


def test_a_lacking_feature_is_named():
    """What the tracee's CPU has and ours has not is named, so that the refusal can say it."""
    assert cpu.lacking(["sse2", "avx512f", "avx2"], ["sse2", "avx2"]) == ["avx512f"]


def test_unknown_names_count():
    """A feature that we have never heard of is still one that the acceptor must have."""
    assert cpu.lacking(["new_thing"], cpu.USABLE) == ["new_thing"]


@given(st.sets(st.sampled_from(sorted(cpu.USABLE))), st.sets(st.sampled_from(sorted(cpu.USABLE))))
def test_lacking_nothing_means_all_is_there(needed, here):
    """Nothing is lacking exactly when all that is needed is here."""
    assert (not cpu.lacking(needed, here)) == (needed <= here)
