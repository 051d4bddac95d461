/* Functions that use memory which nobody could before. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

uint64_t protected_use(uint64_t *words, size_t nwords, uint64_t seed);

/* Allows all of it, looks at its words from the end on, and writes every other one. */
uint64_t protected_use(uint64_t *words, size_t nwords, uint64_t seed)
{
    uint64_t sum = 0;
    if (mprotect(words, nwords * sizeof *words, PROT_READ | PROT_WRITE))
        return 0;
    for (size_t i = nwords; i-- > 0;) {
        sum = sum * 31 + words[i];
        if (i % 2)
            words[i] += seed + i;
    }
    return sum;
}
