/* scratch [ROUNDS]: calls that use a large mapping for their own, and wake a thread whose stack and buffer are such too.
 * When a call returns, the woken thread is in the middle of work that it finishes at home. */
#define _GNU_SOURCE
#include "target.h"
#include "scratch.h"
#include <pthread.h>
#include <sys/mman.h>

enum { LARGE = 32 << 20, WORDS = 8192 };
static sem_t job, done;
static volatile long started, returned;
static uint64_t *buffer;

/* Fills memory of its stack and of a large mapping, tells that it has, and looks at it when the call has returned. */
static uint64_t work(uint64_t seed)
{
    volatile uint64_t words[WORDS];
    uint64_t sum = 0;
    for (size_t i = 0; i < WORDS; i++) {
        words[i] = seed * i;
        buffer[i] = seed + i;
    }
    long before = returned;
    started++;
    while (returned == before)
        ;
    for (size_t i = 0; i < WORDS; i++)
        sum = sum * 31 + words[i] + buffer[i];
    return sum;
}

static uint64_t expected(uint64_t seed)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        sum = sum * 31 + seed * i + seed + i;
    return sum;
}

static void *worker(void *rounds)
{
    for (long i = 0; i < (long)rounds; i++) {
        sem_wait(&job);
        CHECK(work(i + 1) == expected(i + 1));
        sem_post(&done);
    }
    return NULL;
}

static void *large(void)
{
    void *got = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(got != MAP_FAILED);
    return got;
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 5);
    uint64_t *own = large(), sum = 0;
    pthread_t thread;
    pthread_attr_t attr;
    buffer = large();
    sem_init(&job, 0, 0);
    sem_init(&done, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, LARGE);
    CHECK(pthread_create(&thread, &attr, worker, (void *)rounds) == 0);
    for (long i = 0; i < rounds; i++) {
        scratch_pack(own, WORDS, i, &sum);
        printf("%ld %016lx\n", i, sum);
        scratch_wake(&job, &started);
        returned++;
        sem_wait(&done);
    }
    pthread_join(thread, NULL);
    return success();
}
