#ifndef STEALING_H
#define STEALING_H
#include <stdint.h>
extern "C" {
uint64_t steal_sum(long n);
uint64_t steal_sort(long n);
uint64_t steal_nested(long n);
}
#endif
