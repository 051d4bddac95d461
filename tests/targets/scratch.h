/* What libscratch exports. */
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>

void scratch_wake(sem_t *job, volatile long *started);
void scratch_pack(uint64_t *buffer, size_t nwords, uint64_t seed, uint64_t *sum);
