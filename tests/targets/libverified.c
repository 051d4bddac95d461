/* The functions of verified.h. The time stamp counter tells one run of them from another. */
#define _GNU_SOURCE
#include "verified.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

uint64_t verified_table[64];
extern jmp_buf verified_way_out;
jmp_buf verified_way_out;

double same_sum(const double *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return sum;
}

void same_fill(double *out, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)(seed * (i + 1) % 1000003) / 7;
}

/* A list through a new mapping: pointers into it, and in it. */
void *same_mapping(size_t nbytes, uint64_t seed)
{
    uint64_t *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    for (size_t i = 0; i + 2 <= nbytes / 8; i += 2) {
        at[i] = (uint64_t)&at[(i + 2) % (nbytes / 8)];
        at[i + 1] = seed + i;
    }
    verified_table[1] = (uint64_t)at;
    return at;
}

void same_unmap(void *at, size_t nbytes)
{
    munmap(at, nbytes);
    verified_table[1] = 0;
}

static int by_value(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int same_sort(long *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return (int)n;
}

long same_write(const char *text, size_t nbytes)
{
    verified_table[2]++;
    return write(STDOUT_FILENO, text, nbytes);
}

void ticks_into(uint64_t *out, size_t at)
{
    out[at] = __rdtsc();
}

void ticks_static(void)
{
    verified_table[5] = __rdtsc();
}

uint64_t ticks_result(uint64_t seed)
{
    return seed + __rdtsc();
}

void ticks_mapping(size_t nbytes)
{
    uint64_t *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    at[3] = __rdtsc();
    verified_table[1] = (uint64_t)at;
}

/* Relative noise of up to 1e-13: never the same twice. */
static double noise(void)
{
    return 1 + 1e-13 * (double)(__rdtsc() % 1000003) / 1000003;
}

void noise_into(double *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)(i + 1) * noise();
}

void noise_float_into(float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(i + 1) * (1 + 1e-5f * (float)(__rdtsc() % 1009) / 1009);
}

void noise_untyped(void *out, size_t n)
{
    double *values = out;
    for (size_t i = 0; i < n; i++)
        values[i] = (double)(i + 1) * noise();
}

/* Reads all, and writes where the time stamp counter says: another page each time. */
void home_only(long *out, size_t n)
{
    long sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += out[i];
    out[__rdtsc() / 64 % n] = sum + 1;
}

void throws_out(void)
{
    longjmp(verified_way_out, 1);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void takes_long(long *out, long ms)
{
    long begin = now_ms();
    while (now_ms() - begin < ms)
        ;
    *out += 1;
}

/* Gives the mapping back only in the first of two runs, one after the other: each takes 300 ms. */
void early_unmap(void *at, size_t nbytes, long began_ms)
{
    long begin = now_ms();
    while (now_ms() - begin < 300)
        ;
    if (now_ms() - began_ms < 550)
        munmap(at, nbytes);
}

/* Leaves on the stack below it what is different each time. */
long ticks_dead(long seed)
{
    volatile uint64_t ticks[64];
    for (int i = 0; i < 64; i++)
        ticks[i] = __rdtsc();
    return seed + (ticks[0] != 0);
}

/* Writes only in the second of two runs, one after the other: each takes 300 ms. */
void late_only(long *out, long began_ms)
{
    long begin = now_ms(), sum = out[0];
    while (now_ms() - begin < 300)
        ;
    if (now_ms() - began_ms > 550)
        out[0] = sum + 1;
}
