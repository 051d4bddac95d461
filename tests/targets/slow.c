/* slow [ROUNDS]: one slow call that fills a buffer; a secret beside it is nobody's business. Says where both are. */
#include "target.h"
#include <string.h>
#include <sys/mman.h>

#define NBYTES (64 * 4096)

uint64_t slow_fill(unsigned char *at, size_t nbytes, long rounds);

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 3000);
    unsigned char *buffer = mmap(NULL, NBYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *secret = mmap(NULL, NBYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(buffer != MAP_FAILED && secret != MAP_FAILED);
    memset(buffer, 7, NBYTES);
    memset(secret, 9, NBYTES);
    fprintf(stderr, "buffer %p secret %p\n", (void *)buffer, (void *)secret);
    ready();
    uint64_t sum = slow_fill(buffer, NBYTES, rounds);
    printf("sum %016lx %016lx\n", sum, fnv(FNV_START, buffer, NBYTES));
    return success();
}
