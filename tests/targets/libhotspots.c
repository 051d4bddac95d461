/* Functions for those who look where the time goes, and who count calls. */
#include "hotspots.h"

static volatile double sink;

static __attribute__((noinline)) double spin(long n)
{
    double sum = 0;
    for (long i = 0; i < n; i++)
        sum += (double)i * 0.5;
    return sink = sum;
}

__attribute__((noinline)) double outer_work(long n)
{
    return spin(n) + 1;
}

__attribute__((noinline)) long recursive_work(long depth, long n)
{
    if (depth == 0)
        return (long)outer_work(n);
    return recursive_work(depth - 1, n) + depth;
}

__attribute__((noinline)) double sized_work(const int *n, long scale)
{
    return spin(*n * scale) + 1;
}

__attribute__((noinline)) long recursive_task(long depth)
{
    return depth ? recursive_task(depth - 1) + (long)spin(10) : 0;
}

/* Ends in another function's return. */
__attribute__((noinline)) void tail_task(long depth)
{
    if (depth > 0)
        tail_task(depth - 1);
    else
        sink = depth;
}

__attribute__((noinline)) long tiny_task(long n)
{
    sink = (double)n;
    return n;
}
