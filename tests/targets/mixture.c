/* mixture ROUNDS: small and large calls of mixture_mix by turns, from microseconds to tens of milliseconds; prints a sum. */
#include "mixture.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    unsigned long sum = argc;
    for (long round = atol(argv[1]); round; round--)
        for (long n = 16; n <= 32768; n *= 2)
            sum += mixture_mix(n, sum);
    printf("%lu\n", sum);
}
