#include "interrupts.h"
#include "target.h"

static uint64_t mix(uint64_t *words, long rounds)
{
    uint64_t state = 6;
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < 512; i++)
            words[i] = (words[i] ^ words[(i * 7 + 1) % 512]) * 0x9e3779b97f4a7c15ull + next_random(&state);
    return fnv(FNV_START, words, 512 * sizeof *words);
}

uint64_t interrupts_compute(volatile int *ends, uint64_t *words)
{
    uint64_t result = mix(words, 10);
    while (!*ends)
        words[1000]++;
    return result;
}

uint64_t interrupts_speak(long n, uint64_t *words)
{
    printf("speaks %ld\n", n);
    fflush(stdout);
    uint64_t result = mix(words, 300);
    printf("spoke %ld\n", n);
    fflush(stdout);
    return result;
}
