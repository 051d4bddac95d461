/* blas [N] [ROUNDS]: level 3 BLAS by its Fortran names; prints a checksum of each product. */
#include "target.h"

void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
            const int *ldc);
void dsyrk_(const char *uplo, const char *trans, const int *n, const int *k, const double *alpha, const double *a,
            const int *lda, const double *beta, double *c, const int *ldc);

int main(int argc, char **argv)
{
    int n = (int)argument(argc, argv, 1, 200);
    long rounds = argument(argc, argv, 2, 5), count = (long)n * n;
    double *a = malloc((size_t)count * 8), *b = malloc((size_t)count * 8), *c = calloc((size_t)count, 8);
    double alpha = 1.5, beta = 0.25;
    uint64_t seed = 7;
    for (long i = 0; i < count; i++) {
        a[i] = (double)(next_random(&seed) % 1000) / 1000;
        b[i] = (double)(next_random(&seed) % 1000) / 1000;
    }
    ready();
    for (long round = 0; round < rounds; round++) {
        a[round] += 1;
        dgemm_("N", round % 2 ? "T" : "N", &n, &n, &n, &alpha, a, &n, b, &n, &beta, c, &n);
        printf("dgemm %016lx\n", fnv(FNV_START, c, (size_t)count * 8));
        dsyrk_("U", "N", &n, &n, &alpha, b, &n, &beta, c, &n);
        printf("dsyrk %016lx\n", fnv(FNV_START, c, (size_t)count * 8));
    }
    return success();
}
