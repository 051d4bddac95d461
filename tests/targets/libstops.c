#include "target.h"

uint64_t stops_compute(uint64_t *words, long rounds)
{
    uint64_t state = 6;
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < 4096; i++)
            words[i] = (words[i] ^ words[(i * 7 + 1) % 4096]) * 0x9e3779b97f4a7c15ull + next_random(&state);
    return fnv(FNV_START, words, 4096 * sizeof *words);
}
