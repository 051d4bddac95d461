/* Functions whose results are the same wherever they run, and some that are not. */
#ifndef VERIFIED_H
#define VERIFIED_H
#include <stddef.h>
#include <stdint.h>

double same_sum(const double *values, size_t n);
void same_fill(double *out, size_t n, uint64_t seed);
void *same_mapping(size_t nbytes, uint64_t seed);
int same_sort(long *values, size_t n);
void same_unmap(void *at, size_t nbytes);
long same_write(const char *text, size_t nbytes);
void ticks_into(uint64_t *out, size_t at);
void ticks_static(void);
uint64_t ticks_result(uint64_t seed);
void ticks_mapping(size_t nbytes);
void noise_into(double *out, size_t n);
void noise_float_into(float *out, size_t n);
void noise_untyped(void *out, size_t n);
void home_only(long *out, size_t n);
void late_only(long *out, long began_ms);
void early_unmap(void *at, size_t nbytes, long began_ms);
long ticks_dead(long seed);
void throws_out(void);
void takes_long(long *out, long ms);
#endif
