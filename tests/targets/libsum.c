#include <stddef.h>
#include <stdint.h>

uint64_t sum_words(const uint64_t *words, size_t nwords)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < nwords; i++)
        sum += words[i];
    return sum;
}
