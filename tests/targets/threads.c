/* threads counters|waits|concurrent|churn|idle|masked|headless [ROUNDS]: split calls among other threads.
 * idle: the other threads count and main waits for them, until killed. masked: the calling threads block all signals;
 * RUNNING when each has called.
 * headless: main ends and the others go on. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 4, WORDS = 1024 };
static atomic_ulong counters[THREADS];
static atomic_int stop;
static long rounds;

static void *count(void *which)
{
    while (!stop) {
        counters[(long)which]++;
        sched_yield();
    }
    return NULL;
}

static void counters_run(void)
{
    pthread_t threads[THREADS];
    uint64_t words[WORDS] = {1};
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, (void *)i);
    for (long i = 0; i < rounds; i++)
        printf("%ld %016lx\n", i, work_mix(words, WORDS, 3));
    for (int i = 0; i < THREADS; i++) { /* each is still alive after the calls */
        unsigned long before = counters[i];
        while (counters[i] == before)
            sched_yield();
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0 && counters[i] > 0);
}

static void idle_run(void)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, (void *)i);
    puts("RUNNING");
    fflush(stdout);
    pthread_join(threads[0], NULL);
}

static volatile int entered;
static sem_t posted;

static void *post_when_entered(void *unused)
{
    while (!entered)
        sched_yield();
    sem_post(&posted);
    return unused;
}

static void waits_run(void)
{
    sem_init(&posted, 0, 0);
    for (long i = 0; i < rounds; i++) {
        pthread_t thread;
        entered = 0;
        pthread_create(&thread, NULL, post_when_entered, NULL);
        printf("%ld waited %ld\n", i, work_wait(&entered, &posted));
        pthread_join(thread, NULL);
    }
}

static uint64_t results[THREADS];

static void *mix(void *which)
{
    uint64_t words[WORDS] = {(uint64_t)which + 1}, hash = 0;
    for (long i = 0; i < rounds; i++)
        hash = hash * 3 + work_mix(words, WORDS, 2);
    results[(long)which] = hash;
    return NULL;
}

static void concurrent_run(void)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, mix, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        printf("thread %d %016lx\n", i, results[i]);
    }
}

/* Threads come and go between the calls, which they make too. */
static void churn_run(void)
{
    uint64_t words[WORDS] = {3};
    for (long i = 0; i < rounds; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, mix, (void *)(i % THREADS));
        uint64_t here = work_mix(words, WORDS, 1);
        pthread_join(thread, NULL);
        printf("%ld %016lx %016lx\n", i, here, results[i % THREADS]);
    }
}

static atomic_int called;

static void *mix_masked(void *which)
{
    uint64_t words[WORDS] = {1};
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    CHECK(work_mix(words, WORDS, 1));
    called++;
    return mix(which);
}

static void masked_run(void)
{
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, mix_masked, (void *)i);
    while (called < THREADS)
        sched_yield();
    puts("RUNNING");
    fflush(stdout);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        printf("thread %d %016lx\n", i, results[i]);
    }
}

static void *go_on(void *main_thread)
{
    CHECK(pthread_join((pthread_t)main_thread, NULL) == 0);
    mix(NULL);
    printf("%016lx\n", results[0]);
    exit(success());
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "counters";
    rounds = argument(argc, argv, 2, 10);
    ready();
    if (!strcmp(mode, "counters"))
        counters_run();
    else if (!strcmp(mode, "waits"))
        waits_run();
    else if (!strcmp(mode, "concurrent"))
        concurrent_run();
    else if (!strcmp(mode, "idle"))
        idle_run();
    else if (!strcmp(mode, "masked"))
        masked_run();
    else if (!strcmp(mode, "headless")) {
        pthread_t thread;
        pthread_create(&thread, NULL, go_on, (void *)pthread_self());
        pthread_exit(NULL);
    }
    else
        churn_run();
    return success();
}
