#ifndef FAULTS_H
#define FAULTS_H
#include <setjmp.h>
#include <stdint.h>

/* where: the address that the fault should tell. */
struct faults {
    sigjmp_buf back;
    void *volatile where;
    uint64_t written[64];
};

long faults_null(struct faults *faults, volatile long *at);
long faults_inside(struct faults *faults, volatile long *at);
uint64_t faults_fill(struct faults *faults, unsigned char *pages, long npages);
long faults_divide(struct faults *faults, long by);
long faults_undefined(struct faults *faults);
#endif
