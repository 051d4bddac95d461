/* What abi.c calls in libabi.c. */
#include <complex.h>
#include <immintrin.h>
#include <stdint.h>

struct small { int a, b; };
struct floats { float x, y, z; };
struct pair { double x, y; };
struct mixed { long a; double b; };
struct large { long words[25]; };

struct small abi_small(struct small s);
struct floats abi_floats(struct floats f);
struct pair abi_pair(struct pair p, double by);
struct mixed abi_mixed(struct mixed m, int by);
struct large abi_large(struct large in, long by);
double complex abi_complex(double complex z);
__int128 abi_int128(__int128 a, long b);
long double abi_long_double(long double a, long double b);
double abi_varargs(const char *kinds, ...);
long abi_narrow(signed char a, unsigned char b, short c, unsigned short d, _Bool e);
double abi_stack(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j, double k, double l,
                 double m, double n, double o, double p, double q, double r, double s, double t, long u, float v);
__m128d abi_sse(__m128d a, __m128d b);
__attribute__((target("avx2"))) __m256d abi_avx(__m256d a, __m256d b);
__attribute__((target("avx512f"))) __m512d abi_avx512(__m512d a, __m512d b);
uint64_t abi_registers(uint64_t x);
int abi_errno(int value);
long abi_tls(long by);
double abi_rounded(double a, double b);
long double abi_x87(long double a, long double b);
void abi_set_rounding(int mode);

extern __thread long tls_shared;
long *abi_tls_address(void);
