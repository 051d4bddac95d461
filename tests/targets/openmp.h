#ifndef OPENMP_H
#define OPENMP_H
double openmp_sum(const double *values, long n, int nthreads);
long openmp_tree(int depth, int nthreads);
#endif
