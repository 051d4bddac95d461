#include <time.h>

/* Too long for the deadline that the test sets; the clock makes it no loop that could be proved to be stuck. */
static void take_long(void)
{
    struct timespec now, start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec < 150000000L);
}

long nested_outer(long n)
{
    extern long nested_inner(long n);
    long sum = 0;
    for (long i = 0; i < n; i++)
        sum += nested_inner(i);
    take_long();
    return sum + nested_inner(n);
}

unsigned long nested_sum(const unsigned char *at, unsigned long nbytes)
{
    unsigned long sum = 0;
    for (unsigned long i = 0; i < nbytes; i++)
        sum = sum * 31 + at[i];
    return sum;
}

long nested_inner(long n)
{
    return n * n + 1;
}
