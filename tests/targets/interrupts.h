#ifndef INTERRUPTS_H
#define INTERRUPTS_H
#include <stdint.h>
/* Computes until `ends` is set, by a handler. How often it went round does not matter to what it returns. */
uint64_t interrupts_compute(volatile int *ends, uint64_t *words);
/* Prints a line, computes, and prints another. */
uint64_t interrupts_speak(long n, uint64_t *words);
#endif
