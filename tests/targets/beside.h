#ifndef BESIDE_H
#define BESIDE_H
#include <stdatomic.h>
#include <stdint.h>
enum { WORDS = 4096 };
uint64_t beside_work(uint64_t *words, int rounds);
int beside_meet(atomic_int *mine, atomic_int *other);
#endif
