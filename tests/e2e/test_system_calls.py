"""System calls inside split calls: made once, by the tracee, whoever runs the rest."""


def test_system_calls(build, work, profile):
    """Each system call has its effect exactly once, and for those of the tracee's the call goes home."""
    split = work.same([build("syscalls", library="syscalls"), 3], profile("syscalls"))
    assert split.split("sys_print")["went_home"]["syscall:write"] == 3
    assert {"syscall:openat", "syscall:read", "syscall:close"} <= set(split.split("sys_read_file")["went_home"])
    assert split.remote("sys_clock") == 3 and split.split("sys_clock")["went_home"] == {}
    assert not any(entry["calls"]["local"] for entry in split.report["splits"])


def test_own_seccomp_filter(build, work, profile):
    """A program whose filter refuses the system calls that radium would have it make keeps its output."""
    work.same([build("seccomped", library="work"), "errno"], profile("work"))


def test_own_seccomp_filter_that_kills(build, work, profile):
    """A program whose filter kills for the system calls that radium would have it make is not killed."""
    work.same([build("seccomped", library="work"), "kill"], profile("work"))


def test_attach_with_own_seccomp_filter(build, work, profile):
    """The same program is attached behind its filter: it lives, and radium says what it fell back to."""
    for mode in ("errno", "kill"):
        target = work.start([build("seccomped", library="work"), mode], hold=True)
        session = work.start_attach(target.pid, profile("work"))
        session.running.err.wait_for("radium: ")
        target.release()
        target.check_success()
        session.running.wait()
        assert "Traceback" not in session.running.err.finish()
