/* The C program that the benchmark splits. It knows nothing of radium: it obeys lines on stdin, times its own calls and
 * answers each line with one JSON line on stdout. Exported functions, so that a profile can name them.
 * Example: echo "null 1000" | tracee
 *
 * null N       N calls of bench_null, each timed by itself
 * trip N       N calls of bench_trip, which makes one system call, each timed by itself
 * park N       makes N threads that wait for ever, each in its own futex
 * loop N       N calls of bench_null, timed together
 * work N       N calls of bench_work, which computes for a fraction of a millisecond, timed together
 * guarded N    N calls of bench_guarded(0), timed together: the profile's guard wants more than 0
 * pushing N    the same with a function that begins with a push, as most do
 * bulk N       N calls of bench_sum over 64 MiB that are rewritten before each call
 * serve N      N threads at once, each making SERVED calls of bench_serve on words of its own, timed together
 * spin MS      looks at the clock for so long and lists the moments at which it stood still: [when, ns], monotonic
 * A wrong result ends the program with 1.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#define BULK_NBYTES (64UL << 20)
#define BULK_NWORDS (BULK_NBYTES / sizeof(long))
#define SERVED 25
#define SERVED_NWORDS 4096
#define SERVED_ROUNDS 4000
#define WORK_ROUNDS 200000
#define NOTABLE_GAP_NS 50000
#define GAPS 4096

__attribute__((noipa)) long bench_null(long x)
{
    return x;
}

__attribute__((noipa)) long bench_trip(long x)
{
    return x + (getppid() == 0);
}

__attribute__((noipa)) long bench_guarded(long x)
{
    return x;
}

__attribute__((noipa)) long bench_work(long x)
{
    unsigned long hash = x;
    for (int i = 0; i < WORK_ROUNDS; i++)
        hash = (hash ^ i) * 0x9e3779b97f4a7c15ul;
    return hash ? x : 0;
}

long bench_pushing(long x);
__asm__(".globl bench_pushing\n.type bench_pushing,@function\nbench_pushing:\n"
        " push %rbx\n mov %rdi, %rax\n pop %rbx\n ret\n.size bench_pushing, . - bench_pushing\n");

__attribute__((noipa)) long bench_sum(const long *words, long nbytes)
{
    long sum = 0;
    for (long i = 0; i < nbytes / (long)sizeof *words; i++)
        sum += words[i];
    return sum;
}

/* Some tens of milliseconds of work. */
__attribute__((noipa)) unsigned long bench_serve(unsigned long *words)
{
    unsigned long hash = 1;
    for (int round = 0; round < SERVED_ROUNDS; round++)
        for (int i = 0; i < SERVED_NWORDS; i++)
            hash = words[i] = (words[i] ^ hash) * 0x9e3779b97f4a7c15ul + i;
    return hash;
}

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void expect(long got, long wanted)
{
    if (got == wanted)
        return;
    fprintf(stderr, "wrong result: %ld instead of %ld\n", got, wanted);
    exit(1);
}

/* Sorts the samples. */
static void print_statistics(long *ns, long n)
{
    qsort(ns, n, sizeof *ns, compare);
    printf("{\"median_ns\": %ld, \"p99_ns\": %ld, \"min_ns\": %ld}\n", ns[n / 2], ns[n * 99 / 100], ns[0]);
}

static void *wait_for_ever(void *ready)
{
    sem_t never;
    sem_init(&never, 0, 0);
    sem_post(ready);
    while (sem_wait(&never))
        ;
    return NULL;
}

static void park(long n)
{
    pthread_t thread;
    sem_t ready;
    sem_init(&ready, 0, 0);
    for (long i = 0; i < n; i++) {
        expect(pthread_create(&thread, NULL, wait_for_ever, &ready), 0);
        sem_wait(&ready);
    }
    printf("{\"threads\": %ld}\n", n);
}

static void calls(long (*function)(long), long n)
{
    long *ns = calloc(n, sizeof *ns);
    for (long i = 0; i < n; i++) {
        long start = now_ns();
        long got = function(i);
        ns[i] = now_ns() - start;
        expect(got, i);
    }
    print_statistics(ns, n);
    free(ns);
}

static void calls_together(long (*function)(long), long argument, long n)
{
    long start = now_ns();
    for (long i = 0; i < n; i++)
        expect(function(argument), argument);
    printf("{\"mean_ns\": %.3f}\n", (double)(now_ns() - start) / n);
}

static void bulk_calls(long n)
{
    static long *words, round;
    long *ns = calloc(n, sizeof *ns);
    if (!words)
        words = aligned_alloc(1 << 12, BULK_NBYTES);
    for (long i = 0; i < n; i++) {
        long wanted = 0;
        round++;
        for (unsigned long w = 0; w < BULK_NWORDS; w++)
            wanted += words[w] = round * 3 + w;
        long start = now_ns();
        long got = bench_sum(words, BULK_NBYTES);
        ns[i] = now_ns() - start;
        expect(got, wanted);
    }
    print_statistics(ns, n);
    free(ns);
}

static void *serve(void *result)
{
    unsigned long *words = aligned_alloc(1 << 12, SERVED_NWORDS * sizeof *words), hash = 0;
    memset(words, 1, SERVED_NWORDS * sizeof *words);
    for (int i = 0; i < SERVED; i++)
        hash ^= bench_serve(words);
    free(words);
    *(unsigned long *)result = hash;
    return NULL;
}

static void serve_all(long n)
{
    pthread_t threads[64];
    unsigned long results[64];
    long start = now_ns();
    for (long i = 0; i < n && i < 64; i++)
        expect(pthread_create(&threads[i], NULL, serve, &results[i]), 0);
    for (long i = 0; i < n && i < 64; i++)
        expect(pthread_join(threads[i], NULL), 0);
    printf("{\"ns_per_call\": %ld}\n", (now_ns() - start) / (n * SERVED));
    for (long i = 1; i < n && i < 64; i++)
        expect(results[i] == results[0], 1);
}

static void spin(long ms)
{
    static long gaps[GAPS][2];
    long before = now_ns(), end = before + ms * 1000000, largest = 0;
    int n = 0;
    for (long now; before < end; before = now) {
        now = now_ns();
        if (now - before > largest)
            largest = now - before;
        if (now - before >= NOTABLE_GAP_NS && n < GAPS) {
            gaps[n][0] = before;
            gaps[n++][1] = now - before;
        }
    }
    printf("{\"largest_ns\": %ld, \"gaps\": [", largest);
    for (int i = 0; i < n; i++)
        printf("%s[%ld, %ld]", i ? ", " : "", gaps[i][0], gaps[i][1]);
    printf("]}\n");
}

int main(void)
{
    char what[16];
    long n;
    setvbuf(stdout, 0, _IOLBF, 0);
    while (scanf("%15s %ld", what, &n) == 2 && n > 0) {
        if (!strcmp(what, "null"))
            calls(bench_null, n);
        else if (!strcmp(what, "trip"))
            calls(bench_trip, n);
        else if (!strcmp(what, "park"))
            park(n);
        else if (!strcmp(what, "loop"))
            calls_together(bench_null, 7, n);
        else if (!strcmp(what, "work"))
            calls_together(bench_work, 7, n);
        else if (!strcmp(what, "guarded"))
            calls_together(bench_guarded, 0, n);
        else if (!strcmp(what, "pushing"))
            calls_together(bench_pushing, 0, n);
        else if (!strcmp(what, "bulk"))
            bulk_calls(n);
        else if (!strcmp(what, "serve"))
            serve_all(n);
        else if (!strcmp(what, "spin"))
            spin(n);
        else
            return 2;
    }
    return 0;
}
