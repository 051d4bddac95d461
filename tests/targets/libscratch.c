/* Functions whose profile says that large mappings hold nothing of use after them. */
#include "scratch.h"

/* Returns while the thread that it wakes is in the middle of its work. */
void scratch_wake(sem_t *job, volatile long *started)
{
    long before = *started;
    sem_post(job);
    while (*started == before)
        ;
}

void scratch_pack(uint64_t *buffer, size_t nwords, uint64_t seed, uint64_t *sum)
{
    for (size_t i = 0; i < nwords; i++)
        buffer[i] = seed + i;
    for (size_t i = 0; i < nwords; i += 7)
        *sum = *sum * 31 + buffer[i];
}
