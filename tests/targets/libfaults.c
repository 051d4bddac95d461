#include "faults.h"
#include "target.h"

static void work(struct faults *faults, uint64_t seed)
{
    for (int i = 0; i < 64; i++)
        faults->written[i] = next_random(&seed);
}

long faults_null(struct faults *faults, volatile long *at)
{
    work(faults, 1);
    faults->where = (void *)at;
    *at = 5;
    return 1;
}

/* The handler jumps to the place in this function. */
long faults_inside(struct faults *faults, volatile long *at)
{
    volatile long turns = 0;
    int landed = sigsetjmp(faults->back, 1);
    turns++;
    work(faults, (uint64_t)(turns * 10 + landed));
    if (turns < 4) {
        faults->where = (void *)at;
        *at = turns;
    }
    return turns;
}

uint64_t faults_fill(struct faults *faults, unsigned char *pages, long npages)
{
    work(faults, 2);
    for (long i = 0; i < npages; i++) {
        faults->where = &pages[i * 4096 + 8 * i];
        *(volatile uint64_t *)faults->where = faults->written[i % 64];
    }
    return fnv(FNV_START, pages, (size_t)npages * 4096);
}

long faults_divide(struct faults *faults, long by)
{
    long low = 100, high = 0;
    void *where;
    work(faults, 3);
    __asm__ volatile("lea 1f(%%rip), %2\n\tmov %2, %3\n1:\tidivq %4"
                     : "+a"(low), "+d"(high), "=&r"(where), "=m"(faults->where)
                     : "r"(by)
                     : "cc", "memory");
    return low;
}

long faults_undefined(struct faults *faults)
{
    void *where;
    work(faults, 4);
    __asm__ volatile("lea 1f(%%rip), %0\n\tmov %0, %1\n1:\tud2" : "=&r"(where), "=m"(faults->where) : : "memory");
    return (long)(fnv(FNV_START, faults->written, sizeof faults->written) >> 8);
}
