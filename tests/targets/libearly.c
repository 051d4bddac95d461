/* A library that calls its own function as soon as it is loaded, before anybody else can. */
#include <stdio.h>

__attribute__((noinline)) long early_call(long x)
{
    __asm__ volatile("" : "+r"(x));
    return x * 2;
}

__attribute__((constructor)) static void begin(void)
{
    long (*volatile call)(long) = early_call;
    for (long i = 0; i < 3; i++)
        printf("early %ld\n", call(i));
    fflush(stdout);
}
