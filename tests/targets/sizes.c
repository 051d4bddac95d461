/* sizes sum ROUNDS SEED: sizes_sum with sizes of 32 to 4096 in random order; says what each size took, as median, on stderr.
   sizes short SECONDS: sizes_short in a loop; says how many calls of it a second there were, on stderr.
   sizes crowd SECONDS: the same in THREADS threads, and in a child that each of them forks when half of the time is over.
   sizes spin SECONDS: computes. With one argument more: the CPU that it runs on, behind all that is not so nice. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sizes.h"
#include "target.h"

enum { THREADS = 3 };
enum { SMALLEST = 5, LARGEST = 12, KINDS = 2 * (LARGEST - SMALLEST) + 1, MOST = 4096 };
static double took[KINDS][1000];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static long size_of(int kind)
{
    return (kind % 2 ? 181L : 128L) * (1L << (SMALLEST + kind / 2)) / 128;
}

static void sum(int rounds, unsigned seed)
{
    static double data[MOST];
    for (int i = 0; i < MOST; i++)
        data[i] = i % 7;
    for (int round = 0; round < rounds; round++) {
        int order[KINDS];
        for (int i = 0; i < KINDS; i++) {
            int j = rand_r(&seed) % (i + 1);
            order[i] = order[j];
            order[j] = i;
        }
        for (int i = 0; i < KINDS; i++) {
            double began = now();
            data[0] += sizes_sum(data, size_of(order[i])) * 1e-9;
            took[order[i]][round] = now() - began;
        }
    }
    printf("%.17g\n", data[0]);
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(took[kind], rounds, sizeof(double), compare);
        fprintf(stderr, "size %ld took %.9f\n", size_of(kind), took[kind][rounds / 2]);
    }
}

static long shortly(double seconds)
{
    double end = now() + seconds;
    long calls = 0;
    while (now() < end)
        for (int i = 0; i < 100; i++)
            calls = sizes_short(calls);
    return calls / seconds;
}

static void *in_a_thread(void *seconds)
{
    double half = *(double *)seconds / 2;
    CHECK(shortly(half) > 0);
    pid_t child = fork();
    if (!child)
        _exit(shortly(half) > 0 ? 7 : 1);
    CHECK(shortly(half) > 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    return NULL;
}

static void crowd(double seconds)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, in_a_thread, &seconds));
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_join(threads[i], NULL));
}

static void spin(double seconds)
{
    for (double end = now() + seconds; now() < end;)
        ;
}

static void stay_behind(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(!sched_setaffinity(0, sizeof set, &set));
    CHECK(nice(10) == 10);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    int used = strcmp(argv[1], "sum") ? 3 : 4;
    CHECK(argc >= used);
    if (argc > used)
        stay_behind(atoi(argv[used]));
    ready();
    if (!strcmp(argv[1], "sum")) {
        CHECK(atoi(argv[2]) <= 1000);
        sum(atoi(argv[2]), atoi(argv[3]));
    } else if (!strcmp(argv[1], "spin")) {
        spin(atof(argv[2]));
    } else if (!strcmp(argv[1], "crowd")) {
        crowd(atof(argv[2]));
    } else {
        fprintf(stderr, "rate %ld\n", shortly(atof(argv[2])));
    }
    return success();
}
