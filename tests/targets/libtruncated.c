#include "truncated.h"
#include "target.h"

uint64_t truncated_sum(const volatile uint64_t *words, int npages)
{
    uint64_t hash = FNV_START;
    for (int page = 0; page < npages; page++)
        for (int i = 0; i < PAGE / 8; i += 64) {
            uint64_t word = words[page * PAGE / 8 + i];
            hash = fnv(hash, &word, sizeof word);
        }
    return hash;
}

uint64_t truncated_inside(const volatile uint64_t *words, int file, long nbytes)
{
    uint64_t before = truncated_sum(words, NPAGES);
    CHECK(ftruncate(file, nbytes) == 0);
    return before * 31 + truncated_sum(words, NPAGES);
}

uint64_t truncated_rewritten(const volatile uint64_t *words, int file, long at, uint64_t value)
{
    uint64_t before = truncated_sum(words, NPAGES);
    CHECK(pwrite(file, &value, sizeof value, at) == sizeof value);
    return before * 31 + truncated_sum(words, NPAGES);
}
