#include "target.h"
#include <spawn.h>
#include <sys/wait.h>

static void work(uint64_t *words, uint64_t seed)
{
    for (int i = 0; i < 256; i++)
        words[i] ^= next_random(&seed);
}

static long status_of(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

long forking_inside(uint64_t *words, long n)
{
    work(words, (uint64_t)n);
    uint64_t before = words[5];
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        work(words, 77);
        _exit(words[5] == before ? 1 : 3);
    }
    work(words, 78);
    long status = status_of(child);
    work(words, 79);
    return status;
}

long forking_spawn(uint64_t *words, long n)
{
    char name[] = "true", *argv[] = {name, NULL}, *envp[] = {NULL};
    pid_t child;
    work(words, (uint64_t)n);
    CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, argv, envp) == 0);
    work(words, 80);
    return status_of(child);
}

/* Returns twice. */
pid_t forking_returns(uint64_t *words, long n)
{
    work(words, (uint64_t)n);
    pid_t child = fork();
    CHECK(child >= 0);
    work(words, child ? 81 : 82);
    return child;
}
