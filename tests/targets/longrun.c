/* longrun [PAUSE_US]: split calls in a loop until SIGTERM, each checked against the same work done by main.
 * Prints a progress line about twenty times a second: "progress CALLS". */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <signal.h>
#include <time.h>

enum { WORDS = 2048 };
static uint64_t split[WORDS] = {1}, here[WORDS] = {1};
static volatile sig_atomic_t told;

static void on_term(int number)
{
    (void)number;
    told = 1;
}

static uint64_t expected(uint64_t rounds)
{
    for (uint64_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < WORDS; i++)
            here[i] = (here[i] ^ here[(i * 7 + 1) % WORDS]) * 0x9e3779b97f4a7c15ull + r;
    return fnv(FNV_START, here, sizeof here);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    struct timespec pause = {0, argument(argc, argv, 1, 0) * 1000};
    uint64_t calls = 0;
    long printed = 0;
    sigaction(SIGTERM, &action, NULL);
    puts("READY");
    fflush(stdout);
    while (!told) {
        uint64_t rounds = 1 + calls % 3;
        CHECK(work_mix(split, WORDS, rounds) == expected(rounds));
        calls++;
        if (now_ms() - printed >= 50) {
            printed = now_ms();
            printf("progress %lu\n", calls);
            fflush(stdout);
        }
        if (pause.tv_nsec)
            nanosleep(&pause, NULL);
    }
    printf("told after %lu\n", calls);
    return success();
}
