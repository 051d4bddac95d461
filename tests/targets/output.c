/* output CALLS LINES [STOP]: split calls that print, line by line; with STOP, until a file of that name exists. */
#include "target.h"

uint64_t output_lines(long call, long lines, uint64_t *state);

int main(int argc, char **argv)
{
    long calls = argument(argc, argv, 1, 10), lines = argument(argc, argv, 2, 5), made = 0;
    uint64_t state = 1;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    ready();
    for (; made < calls && (argc < 4 || access(argv[3], F_OK)); made++)
        printf("call %ld hash %016lx\n", made, output_lines(made, lines, &state));
    printf("calls %ld\n", made);
    return success();
}
