/* What libwork exports. */
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>

uint64_t work_mix(uint64_t *words, size_t nwords, uint64_t rounds);
long work_wait(volatile int *entered, sem_t *posted);
void work_forever(volatile uint64_t *counter);
void work_poke(volatile long *before, volatile long *at, long value);
int work_divide(int a, int b);
void work_illegal(void);
