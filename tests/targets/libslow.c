/* A call that writes as it goes, for about as long as `rounds` asks for, and touches nothing else. */
#include <stddef.h>
#include <stdint.h>

uint64_t slow_fill(unsigned char *at, size_t nbytes, long rounds)
{
    uint64_t sum = 0;
    for (long r = 1; r <= rounds; r++)
        for (size_t i = 0; i < nbytes; i++)
            sum += at[i] = (unsigned char)(i * (size_t)r + sum);
    return sum;
}

#include <sys/mman.h>

/* Whether so much memory is to be had; it is given back. */
int slow_map(size_t nbytes)
{
    void *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return 0;
    volatile char *first = at;
    *first = 1;
    int got = *first;
    munmap(at, nbytes);
    return got;
}
