/* hotspots MODE: a program that spends its time in a known place. It goes on until it is killed, but for `calls`. */
#include "hotspots.h"
#include "target.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define NTHREADS 1000
#define LONG_ENOUGH 20000

static void spin_for_ever(void)
{
    for (;;)
        outer_work(LONG_ENOUGH);
}

static void *sleeper(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void *spinner(void *argument)
{
    spin_for_ever();
    return argument;
}

/* Code of no file: counts down from edi. push rbp; mov rbp, rsp; L: dec edi; jnz L; pop rbp; ret */
static void jit(void)
{
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xcf, 0x75, 0xfc, 0x5d, 0xc3};
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    memcpy(page, code, sizeof code);
    for (;;)
        ((void (*)(int))page)(1000000);
}

static void *make_calls(void *argument)
{
    for (int n = 1; n <= 100; n++)
        sized_work(&n, 1000);
    for (int n = 0; n < 50; n++)
        recursive_task(7);
    for (int n = 0; n < 30; n++)
        tail_task(3);
    return argument;
}

static volatile sig_atomic_t handled;

static void handle(int number)
{
    handled += number != 0;
}

/* Each signal to a thread that runs all the time is waited for: one that is lost is missed at once. */
static void signals(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    pthread_t thread;
    CHECK(signal(SIGUSR1, handle) != SIG_ERR);
    CHECK(!pthread_create(&thread, NULL, spinner, NULL));
    for (sig_atomic_t sent = 1; poll(&input, 1, 0) == 0; sent++) {
        time_t deadline = time(NULL) + 20;
        CHECK(!pthread_kill(thread, SIGUSR1));
        while (handled != sent)
            CHECK(time(NULL) < deadline);
    }
}

/* An indirect function's implementation, which has no name in a stripped libc. */
static void copy_for_ever(size_t nbytes)
{
    char *from = calloc(1, nbytes), *to = calloc(1, nbytes);
    CHECK(from && to);
    for (;;) {
        memcpy(to, from, nbytes);
        __asm__ volatile("" ::: "memory");
    }
}

/* Two threads make the same calls, when they are told to. */
static void calls(void)
{
    char go;
    pthread_t threads[2];
    CHECK(read(0, &go, 1) == 1);
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, make_calls, NULL));
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    puts("CALLED");
    fflush(stdout);
    CHECK(read(0, &go, 1) == 1);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "spin";
    if (!strcmp(mode, "threads")) {
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 1 << 16);
        pthread_t thread;
        for (int i = 0; i < NTHREADS; i++)
            CHECK(!pthread_create(&thread, &small, sleeper, NULL));
    }
    ready();
    if (!strcmp(mode, "jit"))
        jit();
    if (!strcmp(mode, "signals"))
        return signals(), success();
    if (!strcmp(mode, "calls"))
        return calls(), success();
    if (!strcmp(mode, "sizes"))
        for (int n = 1;; n = n % 100 + 1)
            sized_work(&n, 1000);
    if (!strcmp(mode, "copies"))
        copy_for_ever((size_t)argc << 20);
    if (!strcmp(mode, "hot"))
        for (;;)
            tiny_task(1);
    if (!strcmp(mode, "recursive"))
        for (;;)
            recursive_work(5, LONG_ENOUGH);
    if (!strcmp(mode, "children")) {
        if (fork() == 0)
            spin_for_ever();
        wait(NULL);
    }
    if (!strcmp(mode, "ends") || !strcmp(mode, "execs")) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        while (poll(&input, 1, 0) == 0)
            outer_work(LONG_ENOUGH);
        if (!strcmp(mode, "execs"))
            execl("/bin/sleep", "sleep", "100", (char *)NULL);
        return success();
    }
    spin_for_ever();
}
