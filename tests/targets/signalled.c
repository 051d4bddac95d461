/* signalled [ROUNDS]: signals for other threads than the one whose call is away: one that runs, one that waits for a
 * condition, one that reads. Each has a timer, and meets its signal while the call goes on. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

enum { KINDS = 3, AFTER_NS = 60000000, LIMIT_NS = 120000000, WORDS = 4096 };
static const char *names[KINDS] = {"runs", "waits", "reads"};
static _Atomic int met[KINDS], in_time[KINDS], ends, ready_threads;
static _Atomic long due;
static volatile sig_atomic_t in_call;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int ends_pipe[2];
static timer_t timers[KINDS];
static __thread int me;

static long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static void on_signal(int number)
{
    (void)number;
    met[me]++;
    in_time[me] += in_call && now_ns() - due < LIMIT_NS;
}

static void *live(void *which)
{
    char byte;
    me = (int)(long)which;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = syscall(SYS_gettid);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timers[me]) == 0);
    ready_threads++;
    if (me == 0) {
        while (!ends)
            ;
    } else if (me == 1) {
        pthread_mutex_lock(&lock);
        while (!ends)
            pthread_cond_wait(&ended, &lock);
        pthread_mutex_unlock(&lock);
    } else {
        ssize_t n;
        while ((n = read(ends_pipe[0], &byte, 1)) < 0)
            CHECK(errno == EINTR);
        CHECK(n == 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 2);
    static uint64_t words[WORDS] = {1};
    pthread_t threads[KINDS];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    CHECK(pipe(ends_pipe) == 0);
    ready();
    for (long i = 0; i < KINDS; i++)
        CHECK(pthread_create(&threads[i], NULL, live, (void *)i) == 0);
    while (ready_threads < KINDS)
        usleep(1000);
    printf("warm %016lx\n", work_mix(words, WORDS, 3));
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < KINDS; i++) {
            struct itimerspec once = {.it_value.tv_nsec = AFTER_NS};
            due = now_ns() + AFTER_NS;
            timer_settime(timers[i], 0, &once, NULL);
            in_call = 1;
            uint64_t hash = work_mix(words, WORDS, 30000);
            in_call = 0;
            printf("%ld %s %016lx\n", round, names[i], hash);
            CHECK(met[i] == round + 1);
        }
    for (int i = 0; i < KINDS; i++)
        printf("%s: met %d, in time %d\n", names[i], met[i], in_time[i]);
    ends = 1;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);
    CHECK(write(ends_pipe[1], "", 1) == 1);
    for (int i = 0; i < KINDS; i++)
        pthread_join(threads[i], NULL);
    return success();
}
