#ifndef SERVER_H
#define SERVER_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
enum { WORDS = 4096 };
struct shared {
    pthread_mutex_t lock;
    long inside, outside, sum;
    atomic_long atomic;
};
uint64_t serve_apart(uint64_t *words);
void serve_together(struct shared *shared, uint64_t *words);
long serve_reads(struct shared *shared, long rounds);
#endif
