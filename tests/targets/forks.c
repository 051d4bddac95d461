/* forks fork|linger|grand|spawn|system|vfork: children of a program with split calls. The child of fork, linger and
 * grand makes the call too, so a breakpoint that it inherited would kill it. linger: the child waits for a byte on
 * stdin before it calls. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

enum { WORDS = 512 };
extern char **environ;
static uint64_t words[WORDS] = {5};

static int child(void)
{
    uint64_t hash = 0;
    for (int i = 0; i < 5; i++)
        hash = work_mix(words, WORDS, 2);
    printf("child %016lx\n", hash);
    fflush(stdout);
    return (int)(hash % 100);
}

static int waited(pid_t pid)
{
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "fork";
    char *const echo[] = {"echo", "from", "the", "child", NULL};
    pid_t pid;
    ready();
    for (int i = 0; i < 5; i++)
        printf("before %016lx\n", work_mix(words, WORDS, 1));
    fflush(stdout);
    if (!strcmp(mode, "spawn")) {
        CHECK(posix_spawn(&pid, "/bin/echo", NULL, NULL, echo, environ) == 0);
        printf("status %d\n", waited(pid));
    } else if (!strcmp(mode, "system")) {
        printf("status %d\n", system("echo from the shell; exit 3"));
    } else if (!strcmp(mode, "vfork")) {
        pid = vfork();
        if (!pid) {
            execv("/bin/echo", echo);
            _exit(1);
        }
        printf("status %d\n", waited(pid));
    } else {
        pid = fork();
        if (!pid) {
            char go;
            if (!strcmp(mode, "linger")) {
                printf("LINGERING\n");
                fflush(stdout);
                CHECK(read(0, &go, 1) == 1);
            }
            if (!strcmp(mode, "grand")) {
                pid_t grandchild = fork();
                if (!grandchild)
                    _exit(child());
                printf("grandchild %x\n", waited(grandchild));
            }
            fflush(stdout);
            _exit(child());
        }
        printf("status %x\n", waited(pid));
    }
    printf("after %016lx\n", work_mix(words, WORDS, 1));
    return success();
}
