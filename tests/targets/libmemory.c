/* The operations of memory_ops.h as exported, splittable functions. */
#define NAME(operation) op_##operation
#define LINKAGE
#include "memory_ops.h"

uint64_t machine_globals[GLOBALS] = {1, 2, 3};
__thread uint64_t machine_tls[64];
