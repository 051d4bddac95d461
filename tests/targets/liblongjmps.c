#include <setjmp.h>

long jump_out(sigjmp_buf back, long n, long *written)
{
    *written = n;
    if (n % 2)
        siglongjmp(back, (int)n);
    return n * 2;
}

/* Jumps within itself: does not leave. */
long jump_inside(long n)
{
    sigjmp_buf here;
    volatile long turns = 0;
    sigsetjmp(here, 0);
    if (++turns < n)
        siglongjmp(here, 1);
    return turns;
}
