/* execs self|other|thread STAGE: split calls, then exec into itself or into another program, or into itself by a thread that
 * is not the main one, while the others make calls. */
#include "target.h"
#include <pthread.h>
#include <string.h>

long null_call(long x);

static void *call(void *unused)
{
    for (;;)
        CHECK(null_call(7) == 7);
    return unused;
}

static void *exec_self(void *name)
{
    execl("/proc/self/exe", (char *)name, "thread", "1", NULL);
    return NULL;
}

static void exec_from_thread(char *name)
{
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, call, NULL);
    pthread_create(&thread, NULL, exec_self, name);
    call(NULL);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "self";
    long stage = argument(argc, argv, 2, 0);
    if (!stage)
        ready();
    for (long i = 0; i < 10; i++)
        CHECK(null_call(i + stage) == i + stage);
    printf("stage %ld\n", stage);
    fflush(stdout);
    if (stage)
        return success();
    if (!strcmp(mode, "thread"))
        exec_from_thread(argv[0]);
    if (!strcmp(mode, "self"))
        execl("/proc/self/exe", argv[0], mode, "1", NULL);
    else
        execl("/bin/echo", "echo", "EXIT-SUCCESS", NULL);
    return 1;
}
