/* verified MODE [ROUNDS [threads]]: calls that are verified. What it prints does not depend on what differs from run to run. */
#define _GNU_SOURCE
#include "target.h"
#include "verified.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { N = 4096 };
extern jmp_buf verified_way_out;
extern uint64_t verified_table[64];
static volatile long others;

static void *count(void *to)
{
    volatile long *counter = to;
    for (;;)
        ++*counter;
    return NULL;
}

static void same(long round)
{
    static double values[N];
    same_fill(values, N, (uint64_t)round + 1);
    printf("sum %.17g\n", same_sum(values, N));
    long *numbers = malloc(N * sizeof *numbers);
    uint64_t state = (uint64_t)round;
    for (size_t i = 0; i < N; i++)
        numbers[i] = (long)(next_random(&state) >> 8);
    CHECK(same_sort(numbers, N) == N);
    printf("sorted %016lx\n", fnv(FNV_START, numbers, N * sizeof *numbers));
    free(numbers);
    size_t nbytes = 1 << 20;
    uint64_t *list = same_mapping(nbytes, (uint64_t)round), sum = 0;
    CHECK(list && verified_table[1] == (uint64_t)list);
    for (uint64_t *at = list;;) {
        sum += at[1];
        at = (uint64_t *)at[0];
        if (at == list)
            break;
    }
    printf("list %lu\n", sum);
    same_unmap(list, nbytes);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void jump(void)
{
    if (!setjmp(verified_way_out))
        throws_out();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "same";
    long rounds = argument(argc, argv, 2, 5);
    uint64_t *out = calloc(N, sizeof *out);
    double *mapping = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mapping != MAP_FAILED);
    if (!strcmp(mode, "threads") || argc > 3) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, count, (void *)&others) == 0);
    }
    ready();
    for (long i = 0; i < rounds; i++) {
        if (!strcmp(mode, "same") || !strcmp(mode, "threads"))
            same(i);
        else if (!strcmp(mode, "ticks_into"))
            ticks_into(out, 17);
        else if (!strcmp(mode, "ticks_static"))
            ticks_static();
        else if (!strcmp(mode, "ticks_result"))
            CHECK(ticks_result((uint64_t)i) > 0);
        else if (!strcmp(mode, "ticks_mapping"))
            ticks_mapping(1 << 16);
        else if (!strcmp(mode, "noise"))
            noise_into((double *)out, N);
        else if (!strcmp(mode, "noise_float"))
            noise_float_into((float *)out, N);
        else if (!strcmp(mode, "noise_untyped"))
            noise_untyped(out, N);
        else if (!strcmp(mode, "home_only"))
            home_only((long *)out, N);
        else if (!strcmp(mode, "write"))
            CHECK(same_write("hello\n", 6) == 6);
        else if (!strcmp(mode, "jump"))
            jump();
        else if (!strcmp(mode, "dead"))
            CHECK(ticks_dead(i) == i + 1);
        else if (!strcmp(mode, "late"))
            late_only((long *)out, now_ms());
        else if (!strcmp(mode, "early")) {
            early_unmap(mapping, 1 << 16, now_ms());
            same_fill(mapping, 1 << 13, 7);
            printf("filled %.17g\n", mapping[i]);
        } else if (!strcmp(mode, "long"))
            takes_long((long *)out, 50);
        else
            CHECK(!"a known mode");
        printf("round %ld\n", i);
        fflush(stdout);
        pace();
    }
    if (!strcmp(mode, "long"))
        printf("made %lu\n", out[0]);
    return success();
}
