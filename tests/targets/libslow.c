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
