/* deepstack [CALLS]: split calls that use 3 MiB of stack and write at the deepest point. */
#include "target.h"

uint64_t deepstack_descend(long depth, uint64_t seed);

int main(int argc, char **argv)
{
    long calls = argument(argc, argv, 1, 2);
    ready();
    for (long i = 0; i < calls; i++) {
        printf("call %ld hash %016lx\n", i, deepstack_descend(768, (uint64_t)i));
        fflush(stdout);
    }
    return success();
}
