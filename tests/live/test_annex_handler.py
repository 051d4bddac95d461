"""The annex's SIGTRAP handler in a real process, with no tracer at all."""

import shutil
import signal
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from radium.tracer.annex import SIG_DFL, SIG_IGN, Annex
from radium.tracer.entry import decode_first

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")

BASE = 0x1000_0000
NBYTES = 8192
# First instructions of four kinds: a push, an operand relative to rip, a branch, a call.
SPLIT_POINTS = ("pushes", "loads", "branches", "calls")

TARGET = r"""
// A program that is not radium: it maps the annex, plants int3 at four of its functions' entries, and calls them.
// target IMAGE ACTION BASE MODE
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

long pushes(long), loads(long), branches(long), calls(long), on_stack(void *top, long (*f)(long), long);
void foreign(void);
long seven = 7;
__asm__(
    "pushes: push %rbp; mov %rsp, %rbp; lea 1(%rdi), %rax; pop %rbp; ret\n"
    "loads: mov seven(%rip), %rax; add %rdi, %rax; ret\n"
    "branches: jrcxz 1f; lea 3(%rdi), %rax; ret; 1: lea 3(%rdi), %rax; ret\n"
    "calls: call 2f; add $1, %rax; ret; 2: lea 4(%rdi), %rax; ret\n"
    "on_stack: push %rbp; mov %rsp, %rbp; mov %rdi, %rsp; mov %rdx, %rdi; call *%rsi; mov %rbp, %rsp; pop %rbp; ret\n"
    "foreign: int3; ret\n");

enum { ROUNDS = 25000, THREADS = 4, PAGE = 4096 };
static volatile long chained;

// Calls a split function itself. Steps over nothing: the saved rip is already behind the int3.
void own_handler(int signo, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    if (signo == SIGTRAP && info->si_code == SI_KERNEL && uc->uc_mcontext.gregs[REG_RIP] == (long)foreign + 1)
        chained += pushes(1) == 2;
}

static void *caller(void *arg) {
    for (long i = 0; i < ROUNDS; i++) {
        long x = i + (long)arg;
        if (pushes(x) != x + 1 || loads(x) != x + 7 || branches(x) != x + 3 || calls(x) != x + 5)
            return "wrong";
    }
    return NULL;
}

static void call_from_threads(void) {
    pthread_t threads[THREADS];
    void *answer;
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, caller, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &answer);
        if (answer) { puts(answer); exit(1); }
    }
}

// A stack of 256 bytes with nothing below it: no room for a signal frame.
static void call_on_tiny_stack(void) {
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    char *pages = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + PAGE, PAGE, PROT_READ | PROT_WRITE);
    for (long i = 0; i < 1000; i++)
        if (on_stack(pages + PAGE + 256, pushes, i) != i + 1) { puts("wrong on a tiny stack"); exit(1); }
}

static void *trap(void *arg) { foreign(); return arg; }

static void read_into(const char *path, void *to, size_t nbytes) {
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, to, nbytes) != (ssize_t)nbytes) { perror(path); exit(1); }
    close(fd);
}

static void plant(void *entry) {
    void *page = (void *)((long)entry & -PAGE);
    mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    *(volatile unsigned char *)entry = 0xcc;
}

int main(int argc, char **argv) {
    long action[4];
    char *mode = argv[4], *annex = (char *)strtoul(argv[3], NULL, 0);
    enum { NBYTES = 8192 };
    if (mmap(annex, NBYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != annex)
        return 1;
    read_into(argv[1], annex, NBYTES);
    mprotect(annex, NBYTES, PROT_READ | PROT_EXEC);
    read_into(argv[2], action, sizeof action);
    if (syscall(SYS_rt_sigaction, SIGTRAP, action, NULL, 8)) { perror("rt_sigaction"); return 1; }
    plant(pushes); plant(loads); plant(branches); plant(calls);

    call_from_threads();
    if (!strcmp(mode, "tiny")) call_on_tiny_stack();
    if (!strcmp(mode, "fork")) {
        int status = 1;
        if (!fork()) _exit(pushes(1) == 2 ? 0 : 1);
        if (wait(&status) < 0 || status) { puts("the child died"); return 1; }
    }
    if (!strcmp(mode, "foreign")) foreign();
    if (!strcmp(mode, "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, trap, NULL);
        pthread_join(thread, NULL);
    }
    if (!strcmp(mode, "raise")) raise(SIGTRAP);
    if (!strcmp(mode, "chain")) {
        foreign(); foreign();
        if (chained != 2) { puts("not chained"); return 1; }
        call_from_threads();
    }
    puts("EXIT-SUCCESS");
}
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """The program at fixed addresses, and the addresses and first bytes of its functions."""
    folder = tmp_path_factory.mktemp("annex")
    source, program = folder / "target.c", folder / "target"
    source.write_text(TARGET)
    subprocess.run(["gcc", "-O1", "-no-pie", "-pthread", "-o", program, source], check=True)
    with program.open("rb") as stream:
        elf = ELFFile(stream)
        text = elf.get_section_by_name(".text")
        symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        code, start = text.data(), text["sh_addr"]
    return program, symbols, lambda address: code[address - start : address - start + 15]


@pytest.fixture
def run_target(target, tmp_path):
    """Runs the program in a mode, with an annex for the given old disposition of SIGTRAP."""
    program, symbols, code_at = target

    def run(mode, old_handler=SIG_DFL):
        annex = Annex(BASE, NBYTES, old_handler=symbols.get(old_handler, old_handler))
        for name in SPLIT_POINTS:
            annex.add(decode_first(code_at(symbols[name]), symbols[name]))
        image, action = tmp_path / "image", tmp_path / "action"
        image.write_bytes(annex.image())
        action.write_bytes(annex.kernel_sigaction())
        return subprocess.run([program, image, action, hex(BASE), mode], capture_output=True, text=True, timeout=60)

    return run


def test_the_samples_begin_as_their_names_say(target):
    """The four split points cover a plain copy, a re-based operand, a branch and a call."""
    _, symbols, code_at = target
    texts = [decode_first(code_at(symbols[name]), symbols[name]).text for name in SPLIT_POINTS]
    assert [text.split()[0] for text in texts] == ["push", "mov", "jrcxz", "call"]
    assert "rip" in texts[1]


@pytest.mark.parametrize("mode", ["threads", "tiny", "fork"])
def test_breakpoints_without_a_tracer_do_no_harm(run_target, mode):
    """400,000 calls of four threads, entries on a tiny stack and in a forked child give right results by themselves."""
    done = run_target(mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "EXIT-SUCCESS\n", "")


@pytest.mark.parametrize("mode", ["foreign", "thread", "raise"])
def test_a_foreign_trap_kills_as_it_would_have(run_target, mode):
    """A SIGTRAP that is not radium's kills the program where nobody handles it."""
    done = run_target(mode)
    assert (done.returncode, done.stdout) == (-signal.SIGTRAP, "")


def test_a_foreign_trap_goes_to_the_programs_own_handler(run_target):
    """The program's own handler gets its traps with the kernel's arguments, and returns from them."""
    done = run_target("chain", old_handler="own_handler")
    assert (done.returncode, done.stdout) == (0, "EXIT-SUCCESS\n")


@pytest.mark.parametrize("mode", ["foreign", "raise"])
def test_an_ignored_trap_stays_ignored(run_target, mode):
    """Where the program ignores SIGTRAP, a trap that is not radium's is passed over."""
    done = run_target(mode, old_handler=SIG_IGN)
    assert (done.returncode, done.stdout) == (0, "EXIT-SUCCESS\n")
