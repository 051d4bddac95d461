#include <stddef.h>
#include <string.h>

/* Through the PLT: each inner call passes the split point's entry again. */
long rec_fib(long n)
{
    return n < 2 ? n : rec_fib(n - 1) + rec_fib(n - 2);
}

long rec_deep(long n)
{
    volatile char frame[3000];
    frame[n % sizeof frame] = (char)n;
    return n ? rec_deep(n - 1) + frame[n % sizeof frame] % 2 : 0;
}

/* Insertion sort: calls back into the program. */
void rec_sort(long *items, size_t nitems, int (*compare)(const long *, const long *))
{
    for (size_t i = 1; i < nitems; i++)
        for (size_t j = i; j && compare(&items[j - 1], &items[j]) > 0; j--) {
            long item = items[j];
            items[j] = items[j - 1];
            items[j - 1] = item;
        }
}

/* Calls another split function: part of this call. */
long rec_outer(long n)
{
    return rec_fib(n) + rec_fib(n + 1);
}
