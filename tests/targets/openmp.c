/* openmp [ROUNDS]: parallel regions in split calls and outside of them, with the same team. */
#include "openmp.h"
#include "target.h"
#include <omp.h>

enum { N = 20000 };

int main(int argc, char **argv)
{
    static double values[N];
    long rounds = argument(argc, argv, 1, 5);
    ready();
    for (long round = 0; round < rounds; round++) {
        /* At home: the team of the last call, or the first one of all. */
#pragma omp parallel for schedule(static) num_threads(3)
        for (int i = 0; i < N; i++)
            values[i] = (double)(i % 97) / (1 + round);
        printf("%ld %a %ld\n", round, openmp_sum(values, N, 2 + round % 3), openmp_tree(14, 3));
    }
    return success();
}
