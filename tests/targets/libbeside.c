/* Calls beside which something goes on. */
#include "beside.h"

uint64_t beside_work(uint64_t *words, int rounds)
{
    uint64_t hash = 1;
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < WORDS; i++)
            hash = words[i] = (words[i] ^ words[(i * 7 + 1) % WORDS]) * 0x9e3779b97f4a7c15ull + hash;
    return hash;
}

/* Whether two calls have been under way at the same time. */
int beside_meet(atomic_int *mine, atomic_int *other)
{
    volatile uint64_t spins = 0;
    *mine = 1;
    while (!*other)
        if (++spins == 3000000000u)
            return 0;
    return 1;
}
