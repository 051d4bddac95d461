#ifndef POOLS_H
#define POOLS_H
#include <stdint.h>
/* `away`: whether the profile's guard lets the call leave. */
void pool_start(int nworkers, int away);
uint64_t pool_run(int ntasks, int away);
void pool_stop(int away);
uint64_t threads_join(int nthreads, int away);
uint64_t threads_cancel(int away);
uint64_t threads_barrier(int nthreads, int rounds, int away);
uint64_t threads_pingpong(int rounds, int away);
uint64_t threads_locals(int nthreads, int away);
uint64_t threads_timed(int away);
uint64_t threads_speak(int nthreads, int away);
#endif
