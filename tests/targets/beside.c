/* beside MODE [ROUNDS]: two threads make split calls while the main one does something else, which nothing must disturb.
 * counting: it counts, and is seen to go on. meeting: they wait for each other in their calls. mapping: it maps, protects
 * and unmaps memory. forking: it makes children, which call too. signalling: it sends each of them signals.
 * leaving: it ends the program in the middle of their calls. */
#define _GNU_SOURCE
#include "beside.h"
#include "target.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { NTHREADS = 2, PAGE = 4096 };
struct worker {
    pthread_t thread;
    _Alignas(PAGE) uint64_t words[WORDS];
    _Alignas(PAGE) atomic_int here;
    uint64_t hash;
    long gone_on;
    int index;
};
static struct worker workers[NTHREADS];
static long rounds;
static const char *mode;
static _Alignas(PAGE) atomic_int nended;
static _Alignas(PAGE) atomic_long counter;
static _Alignas(PAGE) pthread_barrier_t barrier;
static __thread volatile int nsignals;
static _Alignas(PAGE) atomic_int nhandled;

static int is(const char *name)
{
    return !strcmp(mode, name);
}

static void on_signal(int number)
{
    nsignals += number == SIGUSR1;
    nhandled++;
}

static void *serve(void *argument)
{
    struct worker *self = argument, *other = &workers[!self->index];
    self->words[0] = (uint64_t)self->index + 1;
    self->hash = FNV_START;
    for (long i = 0; i < rounds; i++) {
        if (is("meeting")) {
            pthread_barrier_wait(&barrier);
            self->hash += (uint64_t)beside_meet(&self->here, &other->here);
            pthread_barrier_wait(&barrier);
            self->here = 0;
        } else {
            long before = counter;
            self->hash = self->hash * 31 + beside_work(self->words, 1500);
            self->gone_on += counter - before;
        }
    }
    nended++;
    return NULL;
}

static uint64_t in_child(void)
{
    uint64_t words[WORDS] = {3};
    return beside_work(words, 20);
}

/* One piece of what the main thread does; its result is the same each time. */
static uint64_t step(void)
{
    if (is("mapping")) {
        char *area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(area != MAP_FAILED);
        memset(area, 1, 8 * PAGE);
        CHECK(mprotect(area + PAGE, PAGE, PROT_READ) == 0 && munmap(area + 4 * PAGE, PAGE) == 0);
        CHECK(munmap(area, 8 * PAGE) == 0);
    } else if (is("forking")) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(in_child() == in_child() ? 7 : 1);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    } else if (is("signalling")) {
        for (int i = 0; i < NTHREADS; i++) {
            int before = nhandled;
            if (pthread_kill(workers[i].thread, SIGUSR1) == 0)
                while (nhandled == before && nended == 0)
                    counter++;
        }
    }
    counter++;
    return 1;
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    mode = argv[1];
    rounds = argument(argc, argv, 2, 4);
    signal(SIGUSR1, on_signal);
    CHECK(pthread_barrier_init(&barrier, NULL, NTHREADS) == 0);
    ready();
    for (int i = 0; i < NTHREADS; i++) {
        workers[i].index = i;
        CHECK(pthread_create(&workers[i].thread, NULL, serve, &workers[i]) == 0);
    }
    uint64_t nsteps = 0;
    while (nended < NTHREADS) {
        nsteps += step();
        if (is("leaving") && counter == 1000000) {
            printf("left\n");
            return success();
        }
    }
    for (int i = 0; i < NTHREADS; i++) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
        printf("thread %d %016lx\n", i, workers[i].hash);
        if (is("counting"))
            printf("gone on beside it: %s\n", workers[i].gone_on > 1000 * rounds ? "yes" : "no");
    }
    CHECK(nsteps == (uint64_t)counter || is("signalling"));
    return success();
}
