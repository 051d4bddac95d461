/* blocked: threads that wait in system calls, none of which may end early, while main waits on stdin for a byte. Then they
 * are woken, and main makes the split call. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>

enum { WAITERS = 7 };
static int ends[2];
static sem_t posted;
static volatile int handled;

static void on_usr1(int number)
{
    (void)number;
    handled = 1;
}

static void *reads(void *unused)
{
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);
    return unused;
}

static void *polls(void *unused)
{
    struct pollfd one = {ends[0], POLLIN, 0};
    CHECK(poll(&one, 1, -1) == 1);
    return unused;
}

static void *polls_with_mask(void *unused)
{
    struct pollfd one = {ends[0], POLLIN, 0};
    struct timespec hour = {3600, 0};
    sigset_t none;
    sigemptyset(&none);
    CHECK(ppoll(&one, 1, &hour, &none) == 1);
    return unused;
}

static void *selects(void *unused)
{
    struct timeval hour = {3600, 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    CHECK(select(ends[0] + 1, &set, NULL, NULL, &hour) == 1);
    return unused;
}

static void *waits(void *unused)
{
    CHECK(sem_wait(&posted) == 0);
    return unused;
}

static void *sleeps(void *unused)
{
    struct timespec start, end, length = {0, 700000000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK(nanosleep(&length, NULL) == 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK((end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec >= length.tv_nsec);
    return unused;
}

static void *suspends(void *tid)
{
    sigset_t none;
    sigemptyset(&none);
    *(volatile pid_t *)tid = (pid_t)syscall(SYS_gettid);
    CHECK(sigsuspend(&none) == -1 && errno == EINTR && handled);
    return NULL;
}

int main(void)
{
    void *(*const waiters[WAITERS])(void *) = {reads, polls, polls_with_mask, selects, waits, sleeps, suspends};
    struct sigaction action = {.sa_handler = on_usr1};
    static uint64_t words[512] = {1};
    static volatile pid_t suspended;
    pthread_t threads[WAITERS];
    sigset_t usr1;
    char go;
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    CHECK(pipe(ends) == 0 && sem_init(&posted, 0, 0) == 0);
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_create(&threads[i], NULL, waiters[i], (void *)&suspended) == 0);
    ready();
    CHECK(read(0, &go, 1) == 1);
    CHECK(write(ends[1], "xxxxxxxx", 8) == 8 && sem_post(&posted) == 0);
    CHECK(syscall(SYS_tgkill, getpid(), suspended, SIGUSR1) == 0);
    for (int i = 0; i < WAITERS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    printf("%016lx\n", work_mix(words, 512, 2));
    return success();
}
