/* Functions whose locks need more of the kernel than a plain wait and wake. */
#define _GNU_SOURCE
#include "locks.h"
#include "target.h"
#include <errno.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

enum { NTHREADS = 3 };

static void make(pthread_mutex_t *mutex, int protocol, int robust)
{
    pthread_mutexattr_t attributes;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_setprotocol(&attributes, protocol) == 0);
    CHECK(pthread_mutexattr_setrobust(&attributes, robust) == 0);
    CHECK(pthread_mutex_init(mutex, &attributes) == 0);
}

static void *die_with_lock(void *mutex)
{
    CHECK(pthread_mutex_lock(mutex) == 0);
    return NULL;
}

long locks_make_robust(pthread_mutex_t *mutex, int is_inheriting)
{
    make(mutex, is_inheriting ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST);
    return locks_recover(mutex, 1);
}

/* dies: a thread of the call ends with the lock first. */
long locks_recover(pthread_mutex_t *mutex, int dies)
{
    pthread_t thread;
    if (dies)
        CHECK(pthread_create(&thread, NULL, die_with_lock, mutex) == 0 && pthread_join(thread, NULL) == 0);
    int first = pthread_mutex_lock(mutex);
    if (first == EOWNERDEAD)
        CHECK(pthread_mutex_consistent(mutex) == 0);
    CHECK(pthread_mutex_unlock(mutex) == 0);
    int second = pthread_mutex_lock(mutex);
    CHECK(pthread_mutex_unlock(mutex) == 0);
    return first * 1000 + second;
}

static pthread_mutex_t inheriting;
static long counter;

static void *count(void *nturns)
{
    for (long i = 0; i < (long)nturns; i++) {
        CHECK(pthread_mutex_lock(&inheriting) == 0);
        counter++;
        CHECK(pthread_mutex_unlock(&inheriting) == 0);
    }
    return NULL;
}

long locks_inherit(long nturns)
{
    pthread_t threads[NTHREADS];
    make(&inheriting, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED);
    counter = 0;
    CHECK(pthread_mutex_lock(&inheriting) == 0);
    for (int i = 0; i < NTHREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count, (void *)nturns) == 0);
    CHECK(pthread_mutex_unlock(&inheriting) == 0);
    for (int i = 0; i < NTHREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(pthread_mutex_destroy(&inheriting) == 0);
    return counter;
}

/* Locked by the caller, with a thread of the program's waiting for it. */
void locks_unlock(pthread_mutex_t *mutex)
{
    CHECK(pthread_mutex_unlock(mutex) == 0);
}

static struct timespec from_now(clockid_t clock, long ms)
{
    struct timespec at;
    CHECK(clock_gettime(clock, &at) == 0);
    at.tv_nsec += ms * 1000000;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    return at;
}

static int is_past(clockid_t clock, struct timespec until)
{
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return now.tv_sec > until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec);
}

static void *lock_in_time(void *mutex)
{
    struct timespec until = from_now(CLOCK_REALTIME, 20);
    long result = pthread_mutex_timedlock(mutex, &until);
    CHECK(is_past(CLOCK_REALTIME, until));
    return (void *)result;
}

static long fails_in_time(int protocol)
{
    pthread_mutex_t mutex;
    pthread_t thread;
    void *result;
    make(&mutex, protocol, PTHREAD_MUTEX_STALLED);
    CHECK(pthread_mutex_lock(&mutex) == 0);
    CHECK(pthread_create(&thread, NULL, lock_in_time, &mutex) == 0 && pthread_join(thread, &result) == 0);
    CHECK(pthread_mutex_unlock(&mutex) == 0 && pthread_mutex_destroy(&mutex) == 0);
    return (long)result;
}

/* Each of these waits ends by its time. */
long locks_timed(void)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    uint32_t word = 5;
    sem_t semaphore;
    long timeouts = fails_in_time(PTHREAD_PRIO_NONE) == ETIMEDOUT;
    timeouts += fails_in_time(PTHREAD_PRIO_INHERIT) == ETIMEDOUT;
    CHECK(sem_init(&semaphore, 0, 1) == 0);
    struct timespec until = from_now(CLOCK_REALTIME, 20);
    CHECK(sem_timedwait(&semaphore, &until) == 0);
    timeouts += sem_timedwait(&semaphore, &until) < 0 && errno == ETIMEDOUT && is_past(CLOCK_REALTIME, until);
    CHECK(pthread_mutex_lock(&mutex) == 0);
    until = from_now(CLOCK_MONOTONIC, 20);
    timeouts += pthread_cond_clockwait(&never, &mutex, CLOCK_MONOTONIC, &until) == ETIMEDOUT && is_past(CLOCK_MONOTONIC, until);
    CHECK(pthread_mutex_unlock(&mutex) == 0);
    until = from_now(CLOCK_MONOTONIC, 20);
    struct timespec relative = {0, 20000000};
    timeouts += syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &relative, NULL, 0) < 0 && errno == ETIMEDOUT;
    timeouts += is_past(CLOCK_MONOTONIC, until);
    until = from_now(CLOCK_MONOTONIC, 20);
    timeouts += syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 5, &until, NULL, 2) < 0 && errno == ETIMEDOUT;
    timeouts += is_past(CLOCK_MONOTONIC, until);
    CHECK(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 4, NULL, NULL, 0) < 0 && errno == EAGAIN);
    CHECK(syscall(SYS_futex, &word, 77, 4, NULL, NULL, 0) < 0 && errno == ENOSYS);
    return timeouts;
}

static _Atomic uint32_t first, second, nwoken;

static void *wait_at_first(void *unused)
{
    while (!first)
        syscall(SYS_futex, &first, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    while (!second)
        syscall(SYS_futex, &second, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    nwoken++;
    return unused;
}

/* The moves themselves are made with nobody, some or all asleep: what must hold is that all are woken in the end. */
long locks_requeue(void)
{
    pthread_t threads[NTHREADS];
    first = second = nwoken = 0;
    for (int i = 0; i < NTHREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_at_first, NULL) == 0);
    CHECK(syscall(SYS_futex, &first, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1L, &second, 1) < 0 && errno == EAGAIN);
    CHECK(syscall(SYS_futex, &first, FUTEX_CMP_REQUEUE_PRIVATE, 1, 1L, &second, 0) >= 0);
    CHECK(syscall(SYS_futex, &first, FUTEX_REQUEUE_PRIVATE, 0, 1L, &second, 0) >= 0);
    first = 1;
    CHECK(syscall(SYS_futex, &first, FUTEX_WAKE_OP_PRIVATE, NTHREADS, (long)NTHREADS, &second,
                  FUTEX_OP(FUTEX_OP_SET, 3, FUTEX_OP_CMP_EQ, 0)) >= 0);
    CHECK(syscall(SYS_futex, &second, FUTEX_WAKE_BITSET_PRIVATE, NTHREADS, NULL, NULL, -1) >= 0);
    for (int i = 0; i < NTHREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return nwoken * 10 + second;
}
