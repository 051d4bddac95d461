/* Parallel regions: the team is made by whoever comes first, and kept by libgomp. */
#include "openmp.h"
#include <omp.h>

double openmp_sum(const double *values, long n, int nthreads)
{
    double parts[16] = {0}, sum = 0;
#pragma omp parallel num_threads(nthreads)
    {
        int me = omp_get_thread_num();
#pragma omp for schedule(static)
        for (long i = 0; i < n; i++)
            parts[me] += values[i] * values[i];
#pragma omp barrier
#pragma omp critical
        parts[me] += me;
    }
    for (int i = 0; i < nthreads; i++)
        sum += parts[i];
    return sum;
}

long openmp_tasks(int depth)
{
    if (depth < 2)
        return depth;
    long a, b;
#pragma omp task shared(a) if (depth > 8)
    a = openmp_tasks(depth - 1);
    b = openmp_tasks(depth - 2);
#pragma omp taskwait
    return a + b;
}

long openmp_tree(int depth, int nthreads)
{
    long out = 0;
#pragma omp parallel num_threads(nthreads)
#pragma omp single
    out = openmp_tasks(depth);
    return out;
}
