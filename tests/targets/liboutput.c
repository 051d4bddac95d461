#include "target.h"

static __attribute__((noinline)) uint64_t compute(uint64_t *state)
{
    uint64_t hash = FNV_START;
    for (int i = 0; i < 20000; i++) {
        uint64_t word = next_random(state);
        hash = fnv(hash, &word, sizeof word);
    }
    return hash;
}

uint64_t output_lines(long call, long lines, uint64_t *state)
{
    uint64_t hash = 0;
    for (long line = 0; line < lines; line++) {
        hash ^= compute(state);
        printf("call %ld line %ld of %ld: %016lx\n", call, line, lines, hash);
    }
    return hash;
}
