/* dies HOW: makes some split calls and ends as it is told. */
#include "target.h"
#include <signal.h>
#include <string.h>

long null_call(long x);

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "return";
    ready();
    for (long i = 0; i < 10; i++)
        CHECK(null_call(i) == i);
    printf("dies by %s\n", how);
    fflush(stdout);
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "segv"))
        *(volatile int *)(uintptr_t)argc = 1;
    if (!strcmp(how, "kill"))
        raise(SIGKILL);
    if (!strcmp(how, "term"))
        raise(SIGTERM);
    if (!strcmp(how, "trap"))
        __asm__ volatile("int3");
    if (!strcmp(how, "exit"))
        exit(37);
    if (!strcmp(how, "_exit"))
        _exit(255);
    return 3;
}
