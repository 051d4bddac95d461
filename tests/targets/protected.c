/* protected [ROUNDS]: calls that allow the use of memory which is protected at home: fresh, with contents, of a file. */
#define _GNU_SOURCE
#include "target.h"
#include <sys/mman.h>

enum { NBYTES = 1 << 20, NWORDS = NBYTES / 8 };
uint64_t protected_use(uint64_t *words, size_t nwords, uint64_t seed);

static uint64_t *reserved(int fd)
{
    void *got = mmap(NULL, NBYTES, PROT_NONE, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    CHECK(got != MAP_FAILED);
    return got;
}

static int file(void)
{
    FILE *made = tmpfile();
    CHECK(made);
    for (uint64_t i = 0; i < NWORDS; i++)
        CHECK(fwrite(&i, 8, 1, made) == 1);
    CHECK(fflush(made) == 0);
    return fileno(made);
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 3);
    int fd = file();
    for (long i = 0; i < rounds; i++) {
        uint64_t *words[] = {reserved(-1), reserved(fd)};
        for (int which = 0; which < 2; which++)
            for (int again = 0; again < 3; again++) {
                uint64_t sum = protected_use(words[which], NWORDS, i + again);
                printf("%ld %d %d %016lx %016lx\n", i, which, again, sum, fnv(FNV_START, words[which], NBYTES));
                CHECK(mprotect(words[which], NBYTES, PROT_NONE) == 0);
            }
    }
    return success();
}
