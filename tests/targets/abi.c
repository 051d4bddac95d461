/* abi [ROUNDS]: what the System V psABI says of arguments, results and kept registers, call by call. */
#define _GNU_SOURCE
#include "abi.h"
#include "target.h"
#include <errno.h>
#include <fenv.h>
#include <string.h>

/* Registers after a call: rbx rbp r12 r13 r14 r15, rflags, mxcsr and x87 control word. */
struct kept { uint64_t rbx, rbp, r12, r13, r14, r15, flags; uint32_t mxcsr; uint16_t x87; };
uint64_t call_and_keep(uint64_t (*function)(uint64_t), uint64_t x, struct kept *kept);

__asm__(".text\n.type call_and_keep, @function\ncall_and_keep:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rdx\n"
        "mov %rdi, %rax\n mov %rsi, %rdi\n"
        "movabs $0x1111111111111111, %rbx\n movabs $0x2222222222222222, %rbp\n movabs $0x3333333333333333, %r12\n"
        "movabs $0x4444444444444444, %r13\n movabs $0x5555555555555555, %r14\n movabs $0x6666666666666666, %r15\n"
        "call *%rax\n"
        "mov (%rsp), %rdx\n"
        "mov %rbx, 0(%rdx)\n mov %rbp, 8(%rdx)\n mov %r12, 16(%rdx)\n mov %r13, 24(%rdx)\n mov %r14, 32(%rdx)\n"
        "mov %r15, 40(%rdx)\n pushfq\n popq 48(%rdx)\n stmxcsr 56(%rdx)\n fnstcw 60(%rdx)\n"
        "pop %rdx\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        ".size call_and_keep, . - call_and_keep\n");

static void hex(const char *name, const void *data, size_t nbytes)
{
    const unsigned char *bytes = data;
    printf("%s ", name);
    while (nbytes--)
        printf("%02x", *bytes++);
    putchar('\n');
}

static void aggregates(long round)
{
    struct small s = abi_small((struct small){(int)round, -5});
    struct floats f = abi_floats((struct floats){1.5f, 2.25f, (float)round});
    struct pair p = abi_pair((struct pair){1.0 / 3, 7}, (double)round + 2);
    struct mixed m = abi_mixed((struct mixed){round << 40, 0.1}, 3);
    struct large in, out;
    for (int i = 0; i < 25; i++)
        in.words[i] = i * round;
    out = abi_large(in, -7);
    double complex z = abi_complex(1.5 + (double)round * I);
    __int128 wide = abi_int128(((__int128)round << 70) - 1, 9);
    hex("small", &s, sizeof s);
    hex("floats", &f, sizeof f);
    hex("pair", &p, sizeof p);
    hex("mixed", &m, sizeof m);
    hex("large", &out, sizeof out);
    hex("complex", &z, sizeof z);
    hex("int128", &wide, sizeof wide);
}

static void scalars(long round)
{
    long beyond = 12345;
    long double quotient = abi_long_double(1.0L + (long double)round, 3.0L);
    double varargs = abi_varargs("ildLpdiLpldddddddiiiiii", 1, 2L, 3.5, 4.25L, &beyond, 5.5, 6, 7.75L, &beyond, 8L, 9.5,
                                 10.5, 11.5, 12.5, 13.5, 14.5, 15.5, 16, 17, 18, 19, 20, 21);
    double stack = abi_stack(1, 2, 3, 4, 5, 6, 7, round, 9, 10, 11.5, 12.5, 13.5, 14.5, 15.5, 16.5, 17.5, 18.5, 19.5,
                             20.5, 21, 22.5f);
    hex("long double", &quotient, 10);
    hex("varargs", &varargs, sizeof varargs);
    hex("stack", &stack, sizeof stack);
    printf("narrow %ld\n", abi_narrow(-100, 200, -30000, 60000, 1));
}

__attribute__((target("avx2"))) static void avx(long round)
{
    __m256d back = abi_avx((__m256d){1.1, 2.2, 3.3, (double)round}, (__m256d){5, 6, 7, 8});
    hex("avx", &back, sizeof back);
}

__attribute__((target("avx512f"))) static void avx512(long round)
{
    __m512d back = abi_avx512((__m512d){1.1, 2.2, 3.3, (double)round, 4, 5, 6, 7}, (__m512d){5, 6, 7, 8, 9, 10, 11, 12});
    hex("avx512", &back, sizeof back);
}

static void vectors(long round)
{
    __m128d back = abi_sse((__m128d){1.1, (double)round}, (__m128d){3, 4});
    hex("sse", &back, sizeof back);
    if (__builtin_cpu_supports("avx2"))
        avx(round);
    if (__builtin_cpu_supports("avx512f"))
        avx512(round);
}

static void registers(long round)
{
    struct kept kept = {0};
    uint64_t back = call_and_keep(abi_registers, (uint64_t)round, &kept);
    CHECK(kept.rbx == 0x1111111111111111 && kept.rbp == 0x2222222222222222 && kept.r12 == 0x3333333333333333);
    CHECK(kept.r13 == 0x4444444444444444 && kept.r14 == 0x5555555555555555 && kept.r15 == 0x6666666666666666);
    CHECK((kept.flags & 0x500) == 0); /* neither DF nor TF */
    printf("registers %lu mxcsr %x x87 %x\n", back, kept.mxcsr & ~0x3fu, kept.x87);
}

static void thread_local_state(long round)
{
    errno = 0;
    int back = abi_errno((int)round + 30);
    printf("errno %d %d\n", errno, back);
    CHECK(abi_tls_address() == &tls_shared);
    tls_shared += 100;
    printf("tls %ld %ld\n", abi_tls(round), tls_shared);
}

static void rounding(void)
{
    const int modes[] = {FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD, FE_TONEAREST};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        double quotient = abi_rounded(1.0, 3.0);
        long double wide = abi_x87(-1.0L, 3.0L);
        CHECK(fegetround() == modes[i]);
        abi_set_rounding(modes[(i + 1) % 4]);
        CHECK(fegetround() == modes[(i + 1) % 4]);
        fesetround(FE_TONEAREST);
        hex("rounded", &quotient, sizeof quotient);
        hex("x87", &wide, 10);
    }
}

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 3);
    ready();
    for (long round = 1; round <= rounds; round++) {
        aggregates(round);
        scalars(round);
        vectors(round);
        registers(round);
        thread_local_state(round);
        rounding();
    }
    return success();
}
