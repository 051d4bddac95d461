#include <unistd.h>

/* Sends the call home; harmless. */
long nested_outer(long n)
{
    extern long nested_inner(long n);
    long sum = 0;
    for (long i = 0; i < n; i++)
        sum += nested_inner(i);
    close(-1);
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
