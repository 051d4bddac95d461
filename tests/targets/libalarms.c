#include "target.h"
#include <errno.h>

uint64_t alarms_compute(long rounds, uint64_t *words)
{
    uint64_t state = 2;
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < 512; i++)
            words[i] = (words[i] ^ words[(i * 7 + 1) % 512]) * 0x9e3779b97f4a7c15ull + next_random(&state);
    return fnv(FNV_START, words, 512 * sizeof *words);
}

/* Before and after the wait something is computed. */
long alarms_read(int from, int *error)
{
    static uint64_t words[512];
    char byte = 0;
    uint64_t before = alarms_compute(10, words);
    long got = read(from, &byte, 1);
    *error = got < 0 && errno == EINTR;
    CHECK(before != alarms_compute(10, words));
    return got * 1000 + byte;
}
