/* interrupts MODE [ROUNDS]: signals that meet split calls.
 * MODE: flag (the handler ends the call), jump (it jumps out), both wait for SIGTERM from outside; alarm, prof, real (a
 * timer rings while calls speak), or late (a call that is told its time by its own timer). */
#define _GNU_SOURCE
#include "interrupts.h"
#include "target.h"
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static volatile int ends;
static volatile sig_atomic_t handled;
static sigjmp_buf back;
static uint64_t words[1024];

static void on_flag(int number)
{
    (void)number;
    ends = 1;
}

static void on_jump(int number)
{
    siglongjmp(back, number);
}

static void on_count(int number)
{
    (void)number;
    handled++;
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void waiting(long n)
{
    printf("waiting %ld\n", n);
    fflush(stdout);
}

static void flag(long n)
{
    ends = 0;
    waiting(n);
    printf("ended %016lx\n", interrupts_compute(&ends, words));
}

static void jump(long n)
{
    ends = 0;
    int number = sigsetjmp(back, 1);
    if (!number) {
        waiting(n);
        interrupts_compute(&ends, words);
    }
    printf("jumped by %d %d\n", number, words[1000] > 0);
    fflush(stdout);
}

/* Ended by its own timer. */
static void late(long n)
{
    struct itimerval soon = {{0, 0}, {0, 20000 + n * 1000}};
    ends = 0;
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    printf("ended %016lx\n", interrupts_compute(&ends, words));
}

static void every(int which, long us)
{
    struct itimerval timer = {{0, us}, {0, us}};
    CHECK(setitimer(which, &timer, NULL) == 0);
}

static void posix_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec often = {{0, 20000000}, {0, 20000000}};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "alarm";
    long rounds = argument(argc, argv, 2, 6);
    ready();
    handle(SIGTERM, !strcmp(mode, "jump") ? on_jump : on_flag);
    handle(SIGALRM, !strcmp(mode, "late") ? on_flag : on_count);
    handle(SIGPROF, on_count);
    handle(SIGRTMIN, on_count);
    if (!strcmp(mode, "alarm"))
        every(ITIMER_REAL, 20000);
    else if (!strcmp(mode, "prof"))
        every(ITIMER_PROF, 5000);
    else if (!strcmp(mode, "real"))
        posix_timer();
    for (volatile long n = 0; n < rounds; n++, pace()) {
        if (!strcmp(mode, "flag"))
            flag(n);
        else if (!strcmp(mode, "jump"))
            jump(n);
        else if (!strcmp(mode, "late"))
            late(n);
        else
            printf("%ld %016lx\n", n, interrupts_speak(n, words));
    }
    if (!strcmp(mode, "alarm") || !strcmp(mode, "prof") || !strcmp(mode, "real"))
        while (!handled)
            continue;
    return success();
}
