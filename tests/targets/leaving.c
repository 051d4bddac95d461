/* leaving MODE: split calls that are left otherwise than by return. MODE: exit, at_once, jumps or thread. */
#include "leaving.h"
#include "target.h"
#include <pthread.h>
#include <string.h>

static uint64_t words(void)
{
    return fnv(FNV_START, leaving_words, sizeof leaving_words);
}

static void at_exit(void)
{
    printf("main's atexit %016lx\n", words());
}

static void jumps(void)
{
    static jmp_buf back;
    static sigjmp_buf signal_back;
    for (volatile long n = 0; n < 9; n++) {
        int landed = setjmp(back);
        if (!landed)
            landed = sigsetjmp(signal_back, 1);
        if (!landed)
            printf("returned %ld\n", leaving_jump(back, signal_back, n));
        else
            printf("landed %d\n", landed);
        printf("words %016lx\n", words());
    }
    for (long n = 1; n < 5; n++) {
        long turns = leaving_turns(n);
        printf("turns %ld words %016lx\n", turns, words());
    }
}

static void cleanup(void *argument)
{
    printf("outer cleanup %ld words %016lx\n", *(long *)argument, words());
}

static void *run(void *argument)
{
    long n = *(long *)argument, result = 0;
    pthread_cleanup_push(cleanup, argument);
    result = leaving_thread(n);
    pthread_cleanup_pop(1);
    return (void *)result;
}

static void threads(void)
{
    for (long n = 0; n < 4; n++) {
        pthread_t thread;
        void *result;
        CHECK(pthread_create(&thread, NULL, run, &n) == 0 && pthread_join(thread, &result) == 0);
        printf("thread %ld result %ld words %016lx\n", n, (long)result, words());
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "exit";
    ready();
    CHECK(atexit(at_exit) == 0);
    if (!strcmp(mode, "exit")) {
        printf("before, not flushed\n");
        leaving_exit(3);
    } else if (!strcmp(mode, "at_once")) {
        printf("before, flushed\n");
        fflush(stdout);
        printf("never seen\n");
        leaving_at_once(7);
    } else if (!strcmp(mode, "jumps")) {
        jumps();
    } else {
        threads();
    }
    return success();
}
