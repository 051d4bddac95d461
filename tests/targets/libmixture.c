/* libmixture: work in proportion to n. */
#include "mixture.h"

unsigned long mixture_mix(long n, unsigned long seed)
{
    for (long i = 0; i < 1000 * n; i++)
        seed = (seed ^ i) * 0x9e3779b97f4a7c15ul;
    return seed;
}
