/* children MODE [ARGS]: children of a program with split calls, which make such calls too; every result is checked against
 * the same work done without a call. What a child has to say, its parent prints, so that the output has one order. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { WORDS = 1024, CALLS = 4 };
extern char **environ;
static uint64_t words[WORDS];

/* CALLS split calls, checked; a byte that says which work it was. */
static int calls(uint64_t seed)
{
    uint64_t own[WORDS], hash = 0, expected = 0;
    for (int i = 0; i < WORDS; i++)
        words[i] = own[i] = seed + (uint64_t)i;
    for (int call = 0; call < CALLS; call++) {
        hash = work_mix(words, WORDS, 2);
        for (uint64_t r = 0; r < 2; r++)
            for (size_t i = 0; i < WORDS; i++)
                own[i] = (own[i] ^ own[(i * 7 + 1) % WORDS]) * 0x9e3779b97f4a7c15ull + r;
        expected = fnv(FNV_START, own, sizeof own);
        CHECK(hash == expected && !memcmp(words, own, sizeof own));
    }
    return (int)(hash % 100);
}

static int status_of(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    return status;
}

static void children(int count)
{
    pid_t pids[16];
    for (int i = 0; i < count; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (!pids[i])
            _exit(calls((uint64_t)i));
    }
    printf("parent %d\n", calls(99));
    for (int i = 0; i < count; i++)
        printf("child %d status %x\n", i, status_of(pids[i]));
}

/* Each process has two children down to the depth; its status is made of theirs. */
static int tree(int depth, uint64_t seed)
{
    int sum = calls(seed) % 10;
    pid_t pids[2];
    for (int i = 0; depth && i < 2; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (!pids[i])
            _exit(tree(depth - 1, seed * 2 + (uint64_t)i));
    }
    for (int i = 0; depth && i < 2; i++)
        sum += WEXITSTATUS(status_of(pids[i]));
    return (sum + calls(seed + 1)) % 128;
}

static void pipeline(int stages)
{
    int in = -1, ends[2];
    uint64_t value = 0;
    for (int i = 0; i < stages; i++) {
        CHECK(pipe(ends) == 0);
        if (!fork()) {
            for (int k = 0; k < 5; k++) {
                value = (uint64_t)k;
                if (in >= 0)
                    CHECK(read(in, &value, sizeof value) == sizeof value);
                value = value * 31 + (uint64_t)calls(value);
                CHECK(write(ends[1], &value, sizeof value) == sizeof value);
            }
            _exit(0);
        }
        close(ends[1]);
        if (in >= 0)
            close(in);
        in = ends[0];
    }
    while (read(in, &value, sizeof value) == sizeof value)
        printf("value %lu\n", value);
    for (int i = 0; i < stages; i++)
        CHECK(wait(NULL) > 0);
}

/* The daemon is nobody's child; it is done when its end of the pipe closes. */
static void daemonise(void)
{
    int ends[2], said;
    CHECK(pipe(ends) == 0);
    pid_t first = fork();
    if (!first) {
        setsid();
        if (fork())
            _exit(3);
        said = calls(5);
        CHECK(write(ends[1], &said, sizeof said) == sizeof said);
        _exit(0);
    }
    close(ends[1]);
    printf("status %x\n", status_of(first));
    CHECK(read(ends[0], &said, sizeof said) == sizeof said);
    printf("daemon %d\n", said);
    CHECK(read(ends[0], &said, 1) == 0);
}

static volatile int shared;

static int beside(void *unused)
{
    (void)unused;
    shared = calls(7);
    return 0;
}

static void clones(void)
{
    int flags[] = {SIGCHLD, CLONE_VFORK | SIGCHLD, CLONE_PARENT_SETTID | CLONE_FS | CLONE_FILES | SIGCHLD, CLONE_VM | SIGCHLD};
    char *stack = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pid_t tid;
    CHECK(stack != MAP_FAILED);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        shared = -1;
        pid_t pid = clone(beside, stack + (1 << 16), flags[i], NULL, &tid, NULL, NULL);
        CHECK(pid > 0);
        printf("flags %x status %x shared %d\n", flags[i], status_of(pid), shared);
        printf("then %d\n", calls(i));
    }
}

static char *self;

static pid_t start(const char *how, char *const argv[])
{
    pid_t pid;
    if (!strcmp(how, "spawn")) {
        CHECK(posix_spawn(&pid, argv[0], NULL, NULL, argv, environ) == 0);
        return pid;
    }
    pid = strcmp(how, "vfork") ? fork() : vfork();
    CHECK(pid >= 0);
    if (!pid) {
        execv(argv[0], argv);
        _exit(111);
    }
    return pid;
}

static void execs(const char *how)
{
    char *const argv[] = {self, "calls", NULL};
    for (int i = 0; i < 3; i++) {
        printf("calls %d\n", calls((uint64_t)i));
        printf("%s status %x\n", how, status_of(start(how, argv)));
    }
}

static void *make_calls(void *ended)
{
    while (!*(volatile int *)ended) {
        uint64_t own[64] = {1};
        CHECK(work_mix(own, 64, 1));
    }
    return NULL;
}

static void threaded(void)
{
    pthread_t threads[3];
    volatile int ended = 0;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, make_calls, (void *)&ended) == 0);
    for (int i = 0; i < 6; i++) {
        pid_t pid = fork();
        if (!pid)
            _exit(calls((uint64_t)i));
        printf("child %d status %x\n", i, status_of(pid));
    }
    ended = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

static volatile sig_atomic_t chlds;

static void on_chld(int number)
{
    (void)number;
    chlds++;
}

/* What the parent hears of its children. */
static void hears(void)
{
    struct sigaction action = {.sa_handler = on_chld};
    siginfo_t info;
    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < 4; i++) {
        int before = chlds;
        pid_t pid = fork();
        if (!pid) {
            calls((uint64_t)i);
            if (i == 1)
                kill(getpid(), SIGKILL);
            if (i == 2)
                raise(SIGSTOP);
            if (i == 3)
                abort();
            _exit(i + 5);
        }
        if (i == 2) {
            CHECK(waitid(P_PID, (id_t)pid, &info, WSTOPPED) == 0 && info.si_code == CLD_STOPPED);
            printf("stopped by %d\n", info.si_status);
            CHECK(waitpid(pid, NULL, WNOHANG) == 0);
            kill(pid, SIGCONT);
            CHECK(waitid(P_PID, (id_t)pid, &info, WCONTINUED) == 0 && info.si_code == CLD_CONTINUED);
        }
        while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0)
            CHECK(errno == EINTR);
        printf("child %d code %d status %d heard %d\n", i, info.si_code, info.si_status, chlds > before);
    }
    CHECK(wait(NULL) < 0 && errno == ECHILD);
}

/* A child that makes calls until the parent says that it is enough. */
static void linger(int count)
{
    int told[2];
    char go;
    CHECK(pipe(told) == 0);
    for (int i = 0; i < count; i++)
        if (!fork()) {
            close(told[1]);
            fcntl(told[0], F_SETFL, O_NONBLOCK);
            for (uint64_t n = 0; read(told[0], &go, 1) < 0 && errno == EAGAIN; n++)
                calls(n);
            _exit(0);
        }
    close(told[0]);
    puts("LINGERING");
    fflush(stdout);
    for (uint64_t n = 0; n < 20; n++)
        calls(n);
    puts("CALLED");
    fflush(stdout);
    CHECK(read(0, &go, 1) == 1);
    close(told[1]);
    for (int i = 0; i < count; i++) {
        int status;
        CHECK(wait(&status) > 0);
        printf("status %x\n", status);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "fork";
    self = argv[0];
    if (!strcmp(mode, "calls")) {
        printf("executed %d\n", calls(3));
        fflush(stdout);
        return 17;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    ready();
    if (!strcmp(mode, "fork"))
        children((int)argument(argc, argv, 2, 4));
    else if (!strcmp(mode, "tree"))
        printf("tree %d\n", tree(3, 1));
    else if (!strcmp(mode, "pipeline"))
        pipeline(4);
    else if (!strcmp(mode, "daemon"))
        daemonise();
    else if (!strcmp(mode, "clone"))
        clones();
    else if (!strcmp(mode, "threaded"))
        threaded();
    else if (!strcmp(mode, "hears"))
        hears();
    else if (!strcmp(mode, "linger"))
        linger((int)argument(argc, argv, 2, 3));
    else if (!strcmp(mode, "start")) {
        printf("calls %d\n", calls(1));
        int status = status_of(start(argv[2], argv + 3));
        printf("status %x\n", status);
    } else
        execs(mode);
    printf("after %d\n", calls(2));
    return success();
}
