#ifndef KERNEL_H
#define KERNEL_H
#include <stdint.h>
/* Each returns what it saw as one number, the same wherever it runs, or checks it. */
long kernel_random(void);
long kernel_name(const char *name);
long kernel_affinity(int cpu);
long kernel_cpu(void);
long kernel_clocks(void);
long kernel_cpu_clock(long long since_ns);
long kernel_memory(void);
long long kernel_since(int clock, long long since_ns);
long kernel_closed(void);
long kernel_brk(void);
uint64_t kernel_map(int file, long nbytes);
long kernel_unknown(long number);
long kernel_robust(void);
long kernel_signals(void);
long kernel_rseq(void);
long kernel_ids(void);
#endif
