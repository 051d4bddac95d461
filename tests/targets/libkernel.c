/* Functions that make system calls by their numbers, and by the vdso. */
#define _GNU_SOURCE
#include "kernel.h"
#include "target.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>

long kernel_random(void)
{
    uint64_t words[64] = {0}, zeros = 0;
    CHECK(syscall(SYS_getrandom, words, sizeof words, 0) == sizeof words);
    for (int i = 0; i < 64; i++)
        zeros += words[i] == 0;
    CHECK(syscall(SYS_getrandom, words, 16, GRND_NONBLOCK) == 16);
    CHECK(syscall(SYS_getrandom, words, 16, 0x100) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_getrandom, 8, 16, 0) == -1 && errno == EFAULT);
    return (long)zeros;
}

/* The length of the name before. */
long kernel_name(const char *name)
{
    char before[16], now[16];
    CHECK(prctl(PR_GET_NAME, before) == 0);
    CHECK(prctl(PR_SET_NAME, name) == 0 && prctl(PR_GET_NAME, now) == 0);
    CHECK(!strcmp(name, now));
    return (long)strlen(before);
}

/* Binds the thread to the CPU, negative: to none. How many it may have. */
long kernel_affinity(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < 64; i++)
        if (cpu < 0 || i == cpu)
            CPU_SET(i, &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    CHECK(sched_getscheduler(0) == SCHED_OTHER && sched_yield() == 0);
    CHECK(sched_get_priority_max(SCHED_FIFO) == 99);
    return CPU_COUNT(&set);
}

long kernel_cpu(void)
{
    unsigned cpu = 99999, node = 99999;
    CHECK(sched_getcpu() >= 0 && sched_getcpu() < 4096);
    CHECK(syscall(SYS_getcpu, &cpu, &node, NULL) == 0);
    return cpu < 4096 && node < 1024;
}

static long long ns(struct timespec time)
{
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* Each clock goes forward, however it is asked, and also past a trip home. */
long kernel_clocks(void)
{
    static const clockid_t clocks[] = {CLOCK_REALTIME,  CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW,
                                       CLOCK_BOOTTIME,  CLOCK_TAI,       CLOCK_PROCESS_CPUTIME_ID,
                                       CLOCK_THREAD_CPUTIME_ID};
    long good = 0;
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        struct timespec first, second, third, fourth;
        CHECK(clock_gettime(clocks[i], &first) == 0);
        CHECK(syscall(SYS_clock_gettime, clocks[i], &second) == 0);
        CHECK(getppid() > 0);
        CHECK(clock_gettime(clocks[i], &third) == 0);
        CHECK(syscall(SYS_clock_gettime, clocks[i], &fourth) == 0);
        good += ns(first) <= ns(second) && ns(second) <= ns(third) && ns(third) <= ns(fourth);
    }
    CHECK(syscall(SYS_clock_gettime, 99, NULL) == -1 && errno == EINVAL);
    CHECK(time(NULL) - 10 < syscall(SYS_time, NULL));
    return good;
}

/* Whether the process's own clock, read before the call, goes on in it. */
long kernel_cpu_clock(long long since_ns)
{
    struct timespec now, resolution;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0 && clock_getres(CLOCK_PROCESS_CPUTIME_ID, &resolution) == 0);
    return ns(now) >= since_ns && clock() >= since_ns / 1000;
}

/* The time of a clock that goes on from where it was before the call, 0 of one that does not. */
long long kernel_since(int clock, long long since_ns)
{
    struct timespec now, again;
    CHECK(clock_gettime(clock, &now) == 0 && syscall(SYS_clock_gettime, clock, &again) == 0);
    return since_ns <= ns(now) && ns(now) <= ns(again) && ns(again) < since_ns + 60000000000ll ? ns(again) : 0;
}

static uint64_t fill(void *pages, size_t nbytes, uint64_t seed)
{
    uint64_t *words = pages;
    for (size_t i = 0; i < nbytes / 8; i++)
        words[i] = next_random(&seed);
    return fnv(FNV_START, pages, nbytes);
}

long kernel_memory(void)
{
    enum { PAGE = 4096 };
    char *pages = (char *)syscall(SYS_mmap, NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    CHECK(pages != MAP_FAILED);
    uint64_t before = fill(pages, 8 * PAGE, 3);
    char *more = (char *)syscall(SYS_mremap, pages, 8 * PAGE, 64 * PAGE, MREMAP_MAYMOVE, 0);
    CHECK(more != MAP_FAILED && fnv(FNV_START, more, 8 * PAGE) == before && more[63 * PAGE] == 0);
    CHECK(syscall(SYS_mremap, more, 64 * PAGE, 4 * PAGE, 0, 0) == (long)more);
    CHECK(syscall(SYS_madvise, more + PAGE, PAGE, MADV_DONTNEED) == 0 && more[PAGE] == 0 && more[PAGE + 99] == 0);
    CHECK(syscall(SYS_madvise, more, PAGE, MADV_WILLNEED) == 0);
    CHECK(syscall(SYS_madvise, more + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_madvise, more, PAGE, 999) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_mprotect, more, PAGE, PROT_READ) == 0);
    uint64_t after = fnv(FNV_START, more, 4 * PAGE);
    CHECK(syscall(SYS_munmap, more, 4 * PAGE) == 0);
    CHECK(syscall(SYS_munmap, more + 1, PAGE) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_mremap, more, PAGE, 2 * PAGE, 0, 0) == -1 && errno == EFAULT);
    return (long)(after >> 1);
}

/* Opens what was mapped closed, and has gone home closed: its pages are still to come then. */
long kernel_closed(void)
{
    enum { PAGE = 4096 };
    char *pages = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && getppid() > 0);
    CHECK(mprotect(pages + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
    pages[2 * PAGE] = 7;
    CHECK(getppid() > 0 && mprotect(pages, 8 * PAGE, PROT_NONE) == 0 && getppid() > 0);
    CHECK(mprotect(pages, 8 * PAGE, PROT_READ) == 0);
    long sum = pages[0] + pages[2 * PAGE] + pages[3 * PAGE];
    CHECK(munmap(pages, 8 * PAGE) == 0);
    return sum;
}

long kernel_brk(void)
{
    char *before = (char *)syscall(SYS_brk, 0);
    char *after = (char *)syscall(SYS_brk, before + 100000);
    CHECK(after == before + 100000 && before[99999] == 0);
    uint64_t filled = fill(before + 8 - (uintptr_t)before % 8, 90000, 4);
    CHECK((char *)syscall(SYS_brk, 0) == after);
    CHECK((char *)syscall(SYS_brk, before) == before && (char *)syscall(SYS_brk, 4096) == before);
    return (long)(filled >> 1);
}

uint64_t kernel_map(int file, long nbytes)
{
    char *at = (char *)syscall(SYS_mmap, NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0L);
    CHECK(at != MAP_FAILED);
    uint64_t hash = fnv(FNV_START, at, (size_t)nbytes);
    at[10] ^= 77;
    hash = fnv(hash, at, (size_t)nbytes);
    CHECK(syscall(SYS_munmap, at, nbytes) == 0);
    CHECK(syscall(SYS_mmap, NULL, nbytes, PROT_READ, MAP_PRIVATE, 999, 0L) == -1 && errno == EBADF);
    return hash;
}

long kernel_unknown(long number)
{
    long result = syscall(number, 1, 2, 3);
    return result * 1000 - errno;
}

long kernel_robust(void)
{
    void *head, *same;
    size_t nbytes;
    CHECK(syscall(SYS_get_robust_list, 0, &head, &nbytes) == 0);
    CHECK(syscall(SYS_set_robust_list, head, nbytes) == 0);
    CHECK(syscall(SYS_set_robust_list, head, nbytes + 1) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_get_robust_list, 0, &same, &nbytes) == 0 && same == head);
    return (long)nbytes;
}

static volatile sig_atomic_t nhandled;

static void note(int number)
{
    (void)number;
    nhandled++;
}

/* A signal that is blocked, raised, seen, taken, raised again and let in. */
long kernel_signals(void)
{
    sigset_t set, old, pending;
    siginfo_t taken;
    struct sigaction action = {.sa_handler = note}, before;
    struct timespec at_once = {0, 0};
    nhandled = 0;
    CHECK(sigaction(SIGUSR2, &action, &before) == 0);
    CHECK(sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR2) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, &old) == 0 && !sigismember(&old, SIGUSR2));
    CHECK(raise(SIGUSR2) == 0 && nhandled == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR2));
    CHECK(sigtimedwait(&set, &taken, &at_once) == SIGUSR2 && taken.si_pid == getpid());
    CHECK(raise(SIGUSR2) == 0 && nhandled == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0 && nhandled == 1);
    CHECK(raise(SIGUSR2) == 0 && nhandled == 2);
    CHECK(syscall(SYS_rt_sigprocmask, 77, &set, NULL, 8) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4) == -1 && errno == EINVAL);
    CHECK(sigaction(SIGUSR2, &before, NULL) == 0);
    return nhandled;
}

/* The kernel writes the area of glibc's still, and refuses another. */
long kernel_rseq(void)
{
    static char area[32] __attribute__((aligned(32)));
    if (!__rseq_size)
        return -1;
    struct rseq *own = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    CHECK(own->cpu_id < 4096);
    CHECK(syscall(SYS_rseq, own, 32, 0, RSEQ_SIG) == -1);
    long refused = errno;
    CHECK(syscall(SYS_rseq, area, 32, 0, RSEQ_SIG) == -1);
    return refused * 1000 + errno;
}

long kernel_ids(void)
{
    long ids[] = {getpid(), gettid(), getppid(), getuid(), geteuid(), getgid(), getegid(), getpgrp(), getsid(0),
                  syscall(SYS_getpid), syscall(SYS_gettid)};
    return (long)(fnv(FNV_START, ids, sizeof ids) >> 1);
}
