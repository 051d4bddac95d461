#include "target.h"

uint64_t deepstack_descend(long depth, uint64_t seed)
{
    uint64_t block[512];
    for (int i = 0; i < 512; i++)
        block[i] = next_random(&seed);
    if (!depth) {
        CHECK(write(1, "deepest\n", 8) == 8);
        return fnv(FNV_START, block, sizeof block);
    }
    uint64_t below = deepstack_descend(depth - 1, seed);
    return fnv(below, block, sizeof block);
}
