/* Calls for several threads at once. */
#include "server.h"

static uint64_t mix(uint64_t *words, int rounds)
{
    uint64_t hash = 1;
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < WORDS; i++)
            hash = words[i] = (words[i] ^ words[(i * 7 + 1) % WORDS]) * 0x9e3779b97f4a7c15ull + hash;
    return hash;
}

uint64_t serve_apart(uint64_t *words)
{
    return mix(words, 800);
}

/* Counts under the lock, with work in between. */
void serve_together(struct shared *shared, uint64_t *words)
{
    mix(words, 40);
    pthread_mutex_lock(&shared->lock);
    long before = shared->inside;
    mix(words, 5);
    shared->inside = before + 1;
    pthread_mutex_unlock(&shared->lock);
    mix(words, 40);
}

/* Whether a number that only grows has never shrunk. */
long serve_reads(struct shared *shared, long rounds)
{
    long last = 0, sound = 1;
    for (long i = 0; i < rounds * 1000; i++) {
        long now = shared->atomic;
        sound &= now >= last;
        last = now;
    }
    return sound;
}
