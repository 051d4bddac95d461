/* server MODE [ROUNDS [THREADS]]: threads that each call a split function again and again, while the others go on.
 * apart: each on buffers of its own. together: on counters that all of them change under a lock, in the calls and outside
 * of them. mapped: as together, in a shared mapping. mixed: by atomic operations, outside of the calls only. */
#define _GNU_SOURCE
#include "server.h"
#include "target.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST = 8 };
static long rounds, nthreads;
static const char *mode;
static struct shared own = {.lock = PTHREAD_MUTEX_INITIALIZER}, *shared = &own;
static uint64_t results[MOST];

static void *serve(void *which)
{
    uint64_t *words = calloc(WORDS, 8), hash = FNV_START;
    words[0] = (uint64_t)which + 1;
    for (long i = 0; i < rounds; i++) {
        if (!strcmp(mode, "apart")) {
            hash = hash * 31 + serve_apart(words);
        } else if (strcmp(mode, "mixed")) {
            serve_together(shared, words);
            pthread_mutex_lock(&shared->lock);
            shared->outside++;
            shared->sum += shared->outside - shared->inside;
            shared->sum -= shared->outside - shared->inside;
            pthread_mutex_unlock(&shared->lock);
        } else {
            hash = hash * 31 + serve_apart(words);
            atomic_fetch_add(&shared->atomic, serve_reads(shared, 7));
        }
    }
    results[(long)which] = hash;
    free(words);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    mode = argv[1];
    rounds = argument(argc, argv, 2, 10);
    nthreads = argument(argc, argv, 3, 4);
    if (!strcmp(mode, "mapped")) {
        shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(shared != MAP_FAILED && pthread_mutex_init(&shared->lock, NULL) == 0);
    }
    pthread_t threads[MOST];
    ready();
    for (long i = 0; i < nthreads; i++)
        CHECK(pthread_create(&threads[i], NULL, serve, (void *)i) == 0);
    for (long i = 0; i < nthreads; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (long i = 0; i < nthreads; i++)
        printf("thread %ld %016lx\n", i, results[i]);
    printf("inside %ld outside %ld sum %ld atomic %ld\n", shared->inside, shared->outside, shared->sum, (long)shared->atomic);
    if (!strcmp(mode, "together") || !strcmp(mode, "mapped"))
        CHECK(shared->inside == rounds * nthreads && shared->outside == rounds * nthreads);
    return success();
}
