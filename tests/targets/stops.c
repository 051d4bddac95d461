/* stops ROUNDS [CALLS]: split calls that compute for long, each announced by a line. */
#include "target.h"

uint64_t stops_compute(uint64_t *words, long rounds);

int main(int argc, char **argv)
{
    static uint64_t words[4096];
    long rounds = argument(argc, argv, 1, 100), calls = argument(argc, argv, 2, 1);
    ready();
    for (long i = 0; i < calls; i++) {
        puts("computing");
        fflush(stdout);
        printf("computed %016lx\n", stops_compute(words, rounds));
        fflush(stdout);
    }
    return success();
}
