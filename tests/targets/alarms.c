/* alarms MODE: SIGALRM during split calls. MODE: handler, altstack, eintr or restart. */
#define _GNU_SOURCE
#include "target.h"
#include <signal.h>
#include <string.h>
#include <sys/time.h>

uint64_t alarms_compute(long rounds, uint64_t *words);
long alarms_read(int from, int *error);

static volatile sig_atomic_t alarms, misplaced;
static int ends[2];
static char *alternative;
static const size_t nbytes = 1 << 16;

static void on_alarm(int number)
{
    char here;
    (void)number;
    alarms++;
    if (alternative && !(&here >= alternative && &here < alternative + nbytes))
        misplaced++;
}

static void on_alarm_write(int number)
{
    (void)number;
    alarms++;
    CHECK(write(ends[1], "x", 1) == 1);
}

static void every_ms(long ms)
{
    struct timeval interval = {0, ms * 1000};
    struct itimerval timer = {interval, interval};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void handle(void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
}

static void compute(int flags)
{
    static uint64_t words[512];
    handle(on_alarm, SA_RESTART | flags);
    every_ms(50);
    uint64_t result = alarms_compute(600000, words);
    every_ms(0);
    printf("result %016lx handled %d misplaced %d\n", result, alarms > 0, misplaced);
}

static void wait_for_byte(void (*handler)(int), int flags)
{
    int error = 0;
    CHECK(pipe(ends) == 0);
    handle(handler, flags);
    every_ms(100);
    long got = alarms_read(ends[0], &error);
    every_ms(0);
    printf("read %ld interrupted %d handled %d\n", got, error, alarms > 0);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "handler";
    ready();
    if (!strcmp(mode, "handler")) {
        compute(0);
    } else if (!strcmp(mode, "altstack")) {
        CHECK((alternative = malloc(nbytes)));
        stack_t stack = {.ss_sp = alternative, .ss_size = nbytes};
        CHECK(sigaltstack(&stack, NULL) == 0);
        compute(SA_ONSTACK);
    } else if (!strcmp(mode, "eintr")) {
        wait_for_byte(on_alarm, 0);
    } else {
        wait_for_byte(on_alarm_write, SA_RESTART);
    }
    return success();
}
