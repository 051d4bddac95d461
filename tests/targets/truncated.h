#ifndef TRUNCATED_H
#define TRUNCATED_H
#include <stdint.h>
enum { PAGE = 4096, NPAGES = 8 };
/* Reads some words of each page. */
uint64_t truncated_sum(const volatile uint64_t *words, int npages);
/* Reads all, makes the file nbytes long, and reads all again. */
uint64_t truncated_inside(const volatile uint64_t *words, int file, long nbytes);
/* Reads all, writes a word of the file by pwrite(2), and reads all again. */
uint64_t truncated_rewritten(const volatile uint64_t *words, int file, long at, uint64_t value);
#endif
