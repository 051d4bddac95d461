"""Limits of the tracee's, and of the mirror's: the answer is the one that the call has at home."""


def test_a_limit_of_the_tracee(build, work, profile):
    """A mapping that the mirror could make and the tracee may not is refused at the commit, and the call runs at home."""
    split = work.same([build("limited", library="slow")], profile("slow"))
    assert split.reasons("slow_map")["conflict"] >= 1


def test_out_of_memory_in_the_mirror(build, work, profile):
    """A mirror that may not have the memory which a call asks for lets it be mapped at home."""
    acceptor = work.serve("--max-memory", 512 << 20)
    split = work.same([build("hungry", library="slow")], profile("slow"), acceptor=acceptor)
    assert split.remote("slow_map") + split.local("slow_map") == 2
    assert split.split("slow_map")["went_home"] == {"syscall:mmap": 1}


def test_a_mirror_that_may_have_no_memory(build, work, profile):
    """An acceptor that cannot even build the mirror says so, and every call runs at home."""
    acceptor = work.serve("--max-memory", 4096)
    split = work.same([build("hungry", library="slow")], profile("slow"), acceptor=acceptor)
    assert split.remote("slow_map") == 0
    assert all(reason.startswith("refused:") for reason in split.reasons("slow_map"))
