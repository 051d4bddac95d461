/* Functions that make threads, use them and end them. */
#define _GNU_SOURCE
#include "pools.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t mix(uint64_t x)
{
    for (int i = 0; i < 20000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    return x;
}

/* A pool as many libraries have one: a queue under a mutex, and two condition variables. */
enum { MOST = 16 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static pthread_t workers[MOST];
static int nworkers, next_task, last_task, nleft, ends;
static uint64_t sum;

static void *serve(void *unused)
{
    pthread_mutex_lock(&lock);
    while (!ends) {
        if (next_task == last_task) {
            pthread_cond_wait(&wanted, &lock);
            continue;
        }
        uint64_t task = next_task++;
        pthread_mutex_unlock(&lock);
        uint64_t result = mix(task);
        pthread_mutex_lock(&lock);
        sum += result;
        if (--nleft == 0)
            pthread_cond_signal(&done);
    }
    pthread_mutex_unlock(&lock);
    return unused;
}

void pool_start(int n, int away)
{
    (void)away;
    ends = 0;
    nworkers = n;
    for (int i = 0; i < n; i++)
        if (pthread_create(&workers[i], NULL, serve, NULL))
            abort();
}

uint64_t pool_run(int ntasks, int away)
{
    (void)away;
    pthread_mutex_lock(&lock);
    sum = 0;
    nleft = ntasks;
    last_task = next_task + ntasks;
    pthread_cond_broadcast(&wanted);
    while (nleft)
        pthread_cond_wait(&done, &lock);
    uint64_t result = sum;
    pthread_mutex_unlock(&lock);
    return result;
}

void pool_stop(int away)
{
    (void)away;
    pthread_mutex_lock(&lock);
    ends = 1;
    pthread_cond_broadcast(&wanted);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < nworkers; i++)
        if (pthread_join(workers[i], NULL))
            abort();
}

static void *mix_one(void *which)
{
    return (void *)mix((uint64_t)which);
}

uint64_t threads_join(int nthreads, int away)
{
    (void)away;
    pthread_t threads[MOST];
    uint64_t out = 0;
    for (long i = 0; i < nthreads; i++)
        if (pthread_create(&threads[i], NULL, mix_one, (void *)i))
            abort();
    for (int i = 0; i < nthreads; i++) {
        void *result;
        if (pthread_join(threads[i], &result))
            abort();
        out = out * 31 + (uint64_t)result;
    }
    return out;
}

static void note_cleanup(void *which)
{
    *(uint64_t *)which += 1000;
}

static void *wait_for_ever(void *which)
{
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
    pthread_cleanup_push(note_cleanup, which);
    pthread_mutex_lock(&own);
    atomic_store((_Atomic uint64_t *)which, 1);
    for (;;)
        pthread_cond_wait(&never, &own);
    pthread_cleanup_pop(0);
    return NULL;
}

uint64_t threads_cancel(int away)
{
    (void)away;
    static _Atomic uint64_t state;
    pthread_t thread;
    void *result;
    state = 0;
    if (pthread_create(&thread, NULL, wait_for_ever, &state))
        abort();
    while (!state)
        sched_yield();
    if (pthread_cancel(thread) || pthread_join(thread, &result))
        abort();
    return state * 2 + (result == PTHREAD_CANCELED);
}

static pthread_barrier_t barrier;
static int barrier_rounds;
static _Atomic uint64_t barrier_sum;

static void *meet(void *which)
{
    for (int i = 0; i < barrier_rounds; i++) {
        barrier_sum += mix((uint64_t)which + i) & 0xFFFF;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

uint64_t threads_barrier(int nthreads, int rounds, int away)
{
    (void)away;
    pthread_t threads[MOST];
    barrier_rounds = rounds;
    barrier_sum = 0;
    pthread_barrier_init(&barrier, NULL, nthreads);
    for (long i = 0; i < nthreads; i++)
        if (pthread_create(&threads[i], NULL, meet, (void *)i))
            abort();
    for (int i = 0; i < nthreads; i++)
        if (pthread_join(threads[i], NULL))
            abort();
    pthread_barrier_destroy(&barrier);
    return barrier_sum;
}

static int ball;

static void *play(void *rounds)
{
    pthread_mutex_lock(&lock);
    for (long i = 0; i < (long)rounds; i++) {
        while (ball % 2 == 0)
            pthread_cond_wait(&wanted, &lock);
        ball++;
        pthread_cond_signal(&done);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

uint64_t threads_pingpong(int rounds, int away)
{
    (void)away;
    pthread_t other;
    ball = 0;
    if (pthread_create(&other, NULL, play, (void *)(long)rounds))
        abort();
    pthread_mutex_lock(&lock);
    for (int i = 0; i < rounds; i++) {
        while (ball % 2 == 1)
            pthread_cond_wait(&done, &lock);
        ball++;
        pthread_cond_signal(&wanted);
    }
    while (ball < 2 * rounds)
        pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
    pthread_join(other, NULL);
    return ball;
}

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic uint64_t destroyed;
static __thread uint64_t local = 7;

static void destroy(void *value)
{
    destroyed += (uint64_t)value;
}

static void make_key(void)
{
    pthread_key_create(&key, destroy);
}

static void *use_locals(void *which)
{
    local += (uint64_t)which;
    pthread_setspecific(key, (void *)local);
    return (void *)local;
}

uint64_t threads_locals(int nthreads, int away)
{
    (void)away;
    pthread_t threads[MOST];
    uint64_t out = 0;
    pthread_once(&once, make_key);
    destroyed = 0;
    for (long i = 0; i < nthreads; i++)
        if (pthread_create(&threads[i], NULL, use_locals, (void *)i))
            abort();
    for (int i = 0; i < nthreads; i++) {
        void *result;
        pthread_join(threads[i], &result);
        out = out * 31 + (uint64_t)result;
    }
    local++;
    return out * 1000 + destroyed + local;
}

uint64_t threads_timed(int away)
{
    (void)away;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 30000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    while (pthread_cond_timedwait(&wanted, &lock, &until) != ETIMEDOUT)
        continue;
    pthread_mutex_unlock(&lock);
    return 1;
}

static void *speak(void *which)
{
    char line[32];
    int n = snprintf(line, sizeof line, "thread %ld\n", (long)which);
    pthread_mutex_lock(&lock);
    while (ball != (long)which)
        pthread_cond_wait(&done, &lock);
    if (write(1, line, n) != n)
        abort();
    ball++;
    pthread_cond_broadcast(&done);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Each thread of the call prints its line, in order. */
uint64_t threads_speak(int nthreads, int away)
{
    (void)away;
    pthread_t threads[MOST];
    ball = 0;
    for (long i = 0; i < nthreads; i++)
        if (pthread_create(&threads[i], NULL, speak, (void *)i))
            abort();
    for (int i = 0; i < nthreads; i++)
        pthread_join(threads[i], NULL);
    return ball;
}
