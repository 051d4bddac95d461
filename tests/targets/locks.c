/* locks MODE [ROUNDS]: locks of split calls and of the program around them. MODE: robust, inherit, handed, timed or
 * requeue. */
#define _GNU_SOURCE
#include "locks.h"
#include "target.h"
#include <string.h>

static pthread_mutex_t mutex;

static void *die_with_lock(void *unused)
{
    CHECK(pthread_mutex_lock(&mutex) == 0);
    return unused;
}

static void robust(int is_inheriting)
{
    pthread_t thread;
    printf("in the call %ld\n", locks_make_robust(&mutex, is_inheriting));
    CHECK(pthread_create(&thread, NULL, die_with_lock, NULL) == 0 && pthread_join(thread, NULL) == 0);
    printf("before the call %ld\n", locks_recover(&mutex, 0));
    CHECK(pthread_mutex_destroy(&mutex) == 0);
}

static void *wait_for_lock(void *result)
{
    CHECK(pthread_mutex_lock(&mutex) == 0);
    *(int *)result = 1;
    CHECK(pthread_mutex_unlock(&mutex) == 0);
    return NULL;
}

/* The call unlocks what a thread at home waits for. */
static void handed(void)
{
    pthread_mutexattr_t attributes;
    pthread_t thread;
    int got = 0;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    CHECK(pthread_mutex_init(&mutex, &attributes) == 0 && pthread_mutex_lock(&mutex) == 0);
    CHECK(pthread_create(&thread, NULL, wait_for_lock, &got) == 0);
    while (!(mutex.__data.__lock & 0x80000000))
        usleep(100);
    CHECK(!got);
    locks_unlock(&mutex);
    CHECK(pthread_join(thread, NULL) == 0 && pthread_mutex_destroy(&mutex) == 0);
    printf("handed %d\n", got);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "robust";
    long rounds = argument(argc, argv, 2, 3);
    ready();
    for (long i = 0; i < rounds; i++, pace()) {
        if (!strcmp(mode, "robust"))
            robust(i % 2);
        else if (!strcmp(mode, "inherit"))
            printf("counted %ld\n", locks_inherit(20));
        else if (!strcmp(mode, "handed"))
            handed();
        else if (!strcmp(mode, "timed"))
            printf("timeouts %ld\n", locks_timed());
        else
            printf("requeued %ld\n", locks_requeue());
    }
    return success();
}
