#define _GNU_SOURCE
#include "abi.h"
#include <errno.h>
#include <fenv.h>
#include <stdarg.h>

__thread long tls_shared = 5;                                                  /* general dynamic: __tls_get_addr */
static __thread long tls_initial __attribute__((tls_model("initial-exec"))) = 7; /* a fixed offset from fs */

struct small abi_small(struct small s) { return (struct small){s.b + 1, s.a - 1}; }
struct floats abi_floats(struct floats f) { return (struct floats){f.z * 2, f.x * 3, f.y * 4}; }
struct pair abi_pair(struct pair p, double by) { return (struct pair){p.y * by, p.x / by}; }
struct mixed abi_mixed(struct mixed m, int by) { return (struct mixed){m.a * by, m.b * by}; }

struct large abi_large(struct large in, long by)
{
    struct large out;
    for (int i = 0; i < 25; i++)
        out.words[i] = in.words[24 - i] * by;
    return out;
}

double complex abi_complex(double complex z) { return z * z + 1; }
__int128 abi_int128(__int128 a, long b) { return a * b + 3; }
long double abi_long_double(long double a, long double b) { return a / b + 1e-18L; }

/* kinds: i int, l long, d double, L long double, p pointer to long */
double abi_varargs(const char *kinds, ...)
{
    double sum = 0;
    va_list arguments;
    va_start(arguments, kinds);
    for (; *kinds; kinds++) {
        sum *= 1.5;
        switch (*kinds) {
        case 'i': sum += va_arg(arguments, int); break;
        case 'l': sum += va_arg(arguments, long); break;
        case 'd': sum += va_arg(arguments, double); break;
        case 'L': sum += va_arg(arguments, long double); break;
        case 'p': sum += *va_arg(arguments, long *); break;
        }
    }
    va_end(arguments);
    return sum;
}

long abi_narrow(signed char a, unsigned char b, short c, unsigned short d, _Bool e)
{
    return a + 10L * b + 100L * c + 1000L * d + 10000L * e;
}

double abi_stack(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j, double k, double l,
                 double m, double n, double o, double p, double q, double r, double s, double t, long u, float v)
{
    return a - b + c - d + e - f + g - h * 3 + i - j * 5 + k - l + m - n + o - p + q - r + s * 7 - t * 9 + u * 11 + v;
}

__m128d abi_sse(__m128d a, __m128d b) { return a * b + a; }
__attribute__((target("avx2"))) __m256d abi_avx(__m256d a, __m256d b) { return a * b - a; }
__attribute__((target("avx512f"))) __m512d abi_avx512(__m512d a, __m512d b) { return a * b + b; }

/* Clobbers all that a function may clobber, and uses what it must keep. */
uint64_t abi_registers(uint64_t x)
{
    __asm__ volatile("mov $0x77, %%rcx\n mov $0x78, %%rdx\n mov $0x79, %%rsi\n mov $0x7a, %%r8\n mov $0x7b, %%r9\n"
                     "mov $0x7c, %%r10\n mov $0x7d, %%r11\n mov $1, %%rbx\n mov $2, %%r12\n mov $3, %%r13\n"
                     "mov $4, %%r14\n mov $5, %%r15\n add %%rbx, %0\n add %%r15, %0\n"
                     : "+a"(x)
                     :
                     : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "rbx", "r12", "r13", "r14", "r15", "cc");
    return x * 3;
}

int abi_errno(int value)
{
    errno = value;
    return value / 2;
}

long abi_tls(long by)
{
    tls_shared += by;
    tls_initial *= 3;
    return tls_initial + tls_shared;
}

long *abi_tls_address(void) { return &tls_shared; }
double abi_rounded(double a, double b) { return a / b; }
long double abi_x87(long double a, long double b) { return a / b; }
void abi_set_rounding(int mode) { fesetround(mode); }
