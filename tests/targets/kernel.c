/* kernel [ROUNDS]: system calls of split functions, and what the program sees of them afterwards. */
#define _GNU_SOURCE
#include "kernel.h"
#include "target.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>

static int file;

static long ids(void)
{
    long ids[] = {getpid(), gettid(), getppid(), getuid(), geteuid(), getgid(), getegid(), getpgrp(), getsid(0),
                  getpid(), gettid()};
    return (long)(fnv(FNV_START, ids, sizeof ids) >> 1);
}

/* Uses more CPU time than a mirror has when it begins. */
static void use_cpu(void)
{
    while (clock() < CLOCKS_PER_SEC / 5)
        continue;
}

/* Where the kernel says the thread runs, in the area that it keeps for it. */
static int cpu_of_rseq(void)
{
    struct rseq *own = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    return __rseq_size ? (int)own->cpu_id : sched_getcpu();
}

/* A clock is the same one here and in a call. */
static void follow(clockid_t clock)
{
    struct timespec before, after;
    CHECK(clock_gettime(clock, &before) == 0);
    long long there = kernel_since(clock, before.tv_sec * 1000000000ll + before.tv_nsec);
    CHECK(clock_gettime(clock, &after) == 0);
    CHECK(there && there <= after.tv_sec * 1000000000ll + after.tv_nsec);
}

static void round_of(long n)
{
    char name[16], now[16] = "";
    cpu_set_t all;
    struct timespec used;
    printf("random %ld\n", kernel_random());
    snprintf(name, sizeof name, "kernel-%ld", n);
    printf("name %ld\n", kernel_name(name));
    int comm = open("/proc/thread-self/comm", O_RDONLY);
    CHECK(comm >= 0 && read(comm, now, sizeof now - 1) > 0 && close(comm) == 0);
    printf("now %s", now);
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    printf("may have %ld\n", kernel_affinity(cpu));
    CHECK(sched_getcpu() == cpu && cpu_of_rseq() == cpu);
    CHECK(kernel_affinity(-1) == CPU_COUNT(&all));
    printf("cpu %ld\n", kernel_cpu());
    follow(CLOCK_REALTIME), follow(CLOCK_MONOTONIC), follow(CLOCK_MONOTONIC_RAW), follow(CLOCK_BOOTTIME);
    printf("clocks %ld\n", kernel_clocks());
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0);
    printf("own clock %ld\n", kernel_cpu_clock(used.tv_sec * 1000000000ll + used.tv_nsec));
    printf("memory %lx\n", kernel_memory());
    printf("closed %ld\n", kernel_closed());
    printf("brk %lx\n", kernel_brk());
    printf("map %lx\n", kernel_map(file, 20000));
    printf("unknown %ld %ld %ld %ld\n", kernel_unknown(1000), kernel_unknown(500), kernel_unknown(-1),
           kernel_unknown(0x40000000 | SYS_getpid));
    printf("robust %ld\n", kernel_robust());
    printf("signals %ld\n", kernel_signals());
    printf("rseq %ld\n", kernel_rseq());
    CHECK(kernel_ids() == ids());
}

static void *run(void *n)
{
    round_of((long)n);
    return NULL;
}

/* Every other round is a thread's. */
int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 4);
    pthread_t thread;
    char bytes[20000];
    ready();
    use_cpu();
    memset(bytes, 5, sizeof bytes);
    CHECK((file = open(".", O_TMPFILE | O_RDWR, 0600)) >= 0 && write(file, bytes, sizeof bytes) == sizeof bytes);
    for (long n = 0; n < rounds; n++, pace()) {
        if (n % 2)
            CHECK(pthread_create(&thread, NULL, run, (void *)n) == 0 && pthread_join(thread, NULL) == 0);
        else
            round_of(n);
    }
    return success();
}
