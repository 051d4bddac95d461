/* forking MODE: split calls that fork. MODE: inside, spawn, returns, or atfork: inside, with handlers. */
#include "target.h"
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>

long forking_inside(uint64_t *words, long n);
long forking_spawn(uint64_t *words, long n);
pid_t forking_returns(uint64_t *words, long n);

static uint64_t words[256];

static void tell(const char *who, long result)
{
    printf("%s %ld words %016lx\n", who, result, fnv(FNV_START, words, sizeof words));
    fflush(stdout);
}

static void returns(long n)
{
    int status;
    pid_t child = forking_returns(words, n);
    if (!child) {
        tell("child", n);
        exit((int)n + 10);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    tell("parent", WEXITSTATUS(status));
}

static void prepare(void)
{
    words[7] = words[7] * 31 + 1;
}

static void in_parent(void)
{
    words[8] ^= words[7];
}

static void in_child(void)
{
    words[9] += words[7];
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "inside";
    if (!strcmp(mode, "atfork"))
        CHECK(pthread_atfork(prepare, in_parent, in_child) == 0);
    ready();
    for (long n = 1; n < 4; n++) {
        if (!strcmp(mode, "inside") || !strcmp(mode, "atfork"))
            tell("inside", forking_inside(words, n));
        else if (!strcmp(mode, "spawn"))
            tell("spawn", forking_spawn(words, n));
        else
            returns(n);
    }
    return success();
}
