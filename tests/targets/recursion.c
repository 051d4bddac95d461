/* recursion: split functions that call themselves, each other, and back into the program. */
#include "target.h"

long rec_fib(long n);
long rec_deep(long n);
void rec_sort(long *items, size_t nitems, int (*compare)(const long *, const long *));
long rec_outer(long n);

static long compared;

static int compare(const long *a, const long *b)
{
    compared++;
    return (*a > *b) - (*a < *b);
}

static int compare_by_calling(const long *a, const long *b)
{
    compared += rec_fib(3); /* a split point inside a callback of a split call */
    return (*a > *b) - (*a < *b);
}

int main(void)
{
    long items[60];
    uint64_t seed = 3;
    ready();
    for (long n = 0; n < 12; n++)
        printf("fib %ld\n", rec_fib(n));
    printf("deep %ld\n", rec_deep(500));
    printf("outer %ld\n", rec_outer(8));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++)
            items[i] = (long)(next_random(&seed) % 1000);
        rec_sort(items, 60, round < 2 ? compare : compare_by_calling);
        printf("sorted %016lx compared %ld\n", fnv(FNV_START, items, sizeof items), compared);
    }
    return success();
}
