/* crowd [THREADS]: threads that make split calls all the time, each checked against the same work done here, until SIGTERM.
 * Prints about ten times a second: "progress CALLS", of all threads. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { WORDS = 512, MOST = 64 };
static atomic_ulong calls;
static volatile sig_atomic_t told;

static void on_term(int number)
{
    (void)number;
    told = 1;
}

static uint64_t expected(uint64_t *words, uint64_t rounds)
{
    for (uint64_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < WORDS; i++)
            words[i] = (words[i] ^ words[(i * 7 + 1) % WORDS]) * 0x9e3779b97f4a7c15ull + r;
    return fnv(FNV_START, words, sizeof *words * WORDS);
}

static void *busy(void *which)
{
    uint64_t split[WORDS] = {(uint64_t)which}, here[WORDS] = {(uint64_t)which};
    for (uint64_t made = 0; !told; made++) {
        CHECK(work_mix(split, WORDS, 1 + made % 3) == expected(here, 1 + made % 3));
        calls++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    struct timespec tenth = {0, 100 * 1000 * 1000};
    long count = argument(argc, argv, 1, 8);
    pthread_t threads[MOST];
    CHECK(count <= MOST);
    sigaction(SIGTERM, &action, NULL);
    puts("READY");
    fflush(stdout);
    for (long i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, busy, (void *)(i + 1)) == 0);
    while (!told) {
        printf("progress %lu\n", atomic_load(&calls));
        fflush(stdout);
        nanosleep(&tenth, NULL);
    }
    for (long i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return success();
}
