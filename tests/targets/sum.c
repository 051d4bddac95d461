/* sum [MIB]: a call that reads much memory; between calls a few pages change. */
#include "target.h"

uint64_t sum_words(const uint64_t *words, size_t nwords);

int main(int argc, char **argv)
{
    size_t nwords = (size_t)argument(argc, argv, 1, 8) << 17;
    uint64_t *words = malloc(nwords * 8), seed = 1, expected = 0;
    for (size_t i = 0; i < nwords; i++)
        expected += words[i] = next_random(&seed);
    ready();
    for (int round = 0; round < 5; round++) {
        size_t changed = next_random(&seed) % nwords;
        words[changed] += 5;
        expected += 5;
        uint64_t sum = sum_words(words, nwords);
        printf("round %d sum %016lx\n", round, sum);
        CHECK(sum == expected);
    }
    return success();
}
