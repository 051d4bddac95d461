/* pools MODE [ROUNDS]: split calls that use threads made before, in and after them. */
#define _GNU_SOURCE
#include "pools.h"
#include "target.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

static long rounds;

static void before(void)
{
    pool_start(4, 0);
    for (long i = 0; i < rounds; i++)
        printf("%ld %016lx\n", i, pool_run(8 + i, 1));
    pool_stop(0);
}

/* Locally and remotely in turns, the pool made and ended in either place. */
static void mixed(void)
{
    for (long i = 0; i < rounds; i++) {
        pool_start(3, i & 1);
        for (int j = 0; j < 4; j++)
            printf("%ld.%d %016lx\n", i, j, pool_run(5, (i >> 1 & 1) ^ (j & 1)));
        pool_stop(i >> 2 & 1);
    }
}

static void parked(void)
{
    pool_start(16, 0);
    for (long i = 0; i < rounds; i++)
        printf("%ld %016lx\n", i, threads_timed(1));
    pool_stop(0);
}

static pthread_mutex_t inheriting;

static void *take(void *unused)
{
    CHECK(pthread_mutex_lock(&inheriting) == 0);
    CHECK(pthread_mutex_unlock(&inheriting) == 0);
    return unused;
}

/* Every other call leaves while a thread waits for a lock that only the kernel knows (futex(2), FUTEX_LOCK_PI). */
static void unknown(void)
{
    pthread_mutexattr_t attributes;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    CHECK(pthread_mutex_init(&inheriting, &attributes) == 0);
    for (long i = 0; i < rounds; i++) {
        pthread_t waiter;
        pool_start(4, 0);
        CHECK(pthread_mutex_lock(&inheriting) == 0);
        CHECK(pthread_create(&waiter, NULL, take, NULL) == 0);
        while (!(*(volatile unsigned *)&inheriting & FUTEX_WAITERS))
            sched_yield();
        printf("%ld %016lx\n", i, pool_run(8 + i, 1));
        CHECK(pthread_mutex_unlock(&inheriting) == 0);
        CHECK(pthread_join(waiter, NULL) == 0);
        pool_stop(0);
        pool_start(4, 0);
        /* A condition variable's waiters wait at two words in turn. */
        printf("%ld %016lx\n", i, pool_run(8 + i, 0));
        printf("%ld %016lx\n", i, pool_run(8 + i, 1));
        pool_stop(0);
    }
}

static void each(const char *mode)
{
    for (long i = 0; i < rounds; i++) {
        uint64_t out = 0;
        if (!strcmp(mode, "join"))
            out = threads_join(1 + i % 8, 1);
        else if (!strcmp(mode, "cancel"))
            out = threads_cancel(1);
        else if (!strcmp(mode, "barrier"))
            out = threads_barrier(2 + i % 4, 10, 1);
        else if (!strcmp(mode, "pingpong"))
            out = threads_pingpong(40, 1);
        else if (!strcmp(mode, "locals"))
            out = threads_locals(4, 1);
        else if (!strcmp(mode, "speak"))
            out = threads_speak(4, 1);
        else
            CHECK(!"a known mode");
        printf("%ld %016lx\n", i, out);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    ready();
    CHECK(argc > 1);
    rounds = argc > 2 ? atol(argv[2]) : 5;
    if (!strcmp(argv[1], "before"))
        before();
    else if (!strcmp(argv[1], "mixed"))
        mixed();
    else if (!strcmp(argv[1], "parked"))
        parked();
    else if (!strcmp(argv[1], "unknown"))
        unknown();
    else
        each(argv[1]);
    return success();
}
