#include "leaving.h"
#include "target.h"
#include <pthread.h>

uint64_t leaving_words[256];

static uint64_t work(uint64_t seed)
{
    for (int i = 0; i < 256; i++)
        leaving_words[i] ^= next_random(&seed);
    return fnv(FNV_START, leaving_words, sizeof leaving_words);
}

static void at_exit(void)
{
    printf("library's atexit %016lx\n", work(1));
}

void leaving_exit(int status)
{
    CHECK(atexit(at_exit) == 0);
    printf("not flushed %016lx\n", work(2));
    exit(status);
}

void leaving_at_once(int status)
{
    work(3);
    _exit(status + (leaving_words[0] == 0));
}

long leaving_jump(jmp_buf back, sigjmp_buf signal_back, long n)
{
    work((uint64_t)n);
    if (n % 3 == 1)
        longjmp(back, (int)n);
    if (n % 3 == 2)
        siglongjmp(signal_back, (int)n);
    return n;
}

/* Jumps within itself, both ways. */
long leaving_turns(long n)
{
    jmp_buf here;
    sigjmp_buf there;
    volatile long turns = 0, signal_turns = 0;
    if (setjmp(here) < n) {
        turns++;
        work((uint64_t)turns);
        longjmp(here, (int)turns);
    }
    if (sigsetjmp(there, 1) < n) {
        signal_turns++;
        work((uint64_t)signal_turns + 1000);
        siglongjmp(there, (int)signal_turns);
    }
    return turns * 100 + signal_turns;
}

static void cleanup(void *argument)
{
    printf("inner cleanup %ld %016lx\n", *(volatile long *)argument, work(4));
}

long leaving_thread(long n)
{
    volatile long kept = n * 2;
    pthread_cleanup_push(cleanup, (void *)&kept);
    work((uint64_t)n);
    kept = kept + 1;
    if (n % 2)
        pthread_exit((void *)(n + 100));
    pthread_cleanup_pop(0);
    return kept;
}
