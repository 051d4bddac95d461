/* Calls that take a while, wait, or go through memory: shared by threads, signals, forks and longrun. */
#include "target.h"
#include <errno.h>
#include <semaphore.h>

/* Mixes `rounds` times over the buffer, in place; returns its checksum. */
uint64_t work_mix(uint64_t *words, size_t nwords, uint64_t rounds)
{
    for (uint64_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < nwords; i++)
            words[i] = (words[i] ^ words[(i * 7 + 1) % nwords]) * 0x9e3779b97f4a7c15ull + r;
    return fnv(FNV_START, words, nwords * 8);
}

/* Returns when another thread that has seen *entered posts. */
long work_wait(volatile int *entered, sem_t *posted)
{
    *entered = 1;
    while (sem_wait(posted) && errno == EINTR)
        ;
    return *entered + 41;
}

/* Never returns: only a signal handler's jump ends it. */
void work_forever(volatile uint64_t *counter)
{
    for (;;)
        ++*counter;
}

/* Writes `before`, then through `at`, which may not be writable. */
void work_poke(volatile long *before, volatile long *at, long value)
{
    *before = value;
    *at = value + 1;
}

int work_divide(int a, int b)
{
    int quotient; /* in assembly: the compiler takes division by zero for undefined and may drop it */
    __asm__ volatile("cltd\n idivl %2" : "=a"(quotient) : "0"(a), "r"(b) : "rdx", "cc");
    return quotient;
}

void work_illegal(void)
{
    __asm__ volatile("ud2");
}
