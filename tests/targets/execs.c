/* execs self|other|vector STAGE: split calls, then exec into itself or into another program. */
#include "target.h"
#include <string.h>

long null_call(long x);

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
    if (!strcmp(mode, "self"))
        execl("/proc/self/exe", argv[0], mode, "1", NULL);
    else
        execl("/bin/echo", "echo", "EXIT-SUCCESS", NULL);
    return 1;
}
