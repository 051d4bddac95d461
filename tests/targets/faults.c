/* faults MODE: faults of a split call, whose handlers run on a stack of their own.
 * MODE: null, inside, protected, divide or undefined. */
#define _GNU_SOURCE
#include "faults.h"
#include "target.h"
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { NPAGES = 4, STACK = 1 << 16 };
static struct faults faults;
static char *stack, *pages;
static int handled;

static void tell(int number, siginfo_t *info)
{
    char here;
    int is_on_stack = &here >= stack && &here < stack + STACK;
    uint64_t kept = fnv(FNV_START, faults.written, sizeof faults.written);
    printf("signal %d code %d address %s stack %s kept %016lx\n", number, info->si_code,
           info->si_addr == faults.where ? "right" : "wrong", is_on_stack ? "right" : "wrong", kept);
    handled++;
}

static void jump(int number, siginfo_t *info, void *context)
{
    (void)context;
    tell(number, info);
    siglongjmp(faults.back, number);
}

static void unprotect(int number, siginfo_t *info, void *context)
{
    (void)context;
    tell(number, info);
    char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)4095);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void pass_by(int number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    tell(number, info);
    interrupted->uc_mcontext.gregs[REG_RIP] += 2;
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void null(void)
{
    handle(SIGSEGV, jump);
    for (volatile int i = 0; i < 3; i++) {
        long fine = 0;
        printf("fine %ld", faults_null(&faults, &fine));
        printf(" wrote %ld\n", fine);
        int landed = sigsetjmp(faults.back, 1);
        if (!landed)
            printf("returned %ld\n", faults_null(&faults, (volatile long *)(uintptr_t)(i * 8)));
        printf("landed %d\n", landed);
    }
}

static void inside(void)
{
    handle(SIGSEGV, jump);
    printf("turns %ld\n", faults_inside(&faults, NULL));
}

static void protected(void)
{
    handle(SIGSEGV, unprotect);
    for (int i = 0; i < 2; i++) {
        CHECK(mprotect(pages, NPAGES * 4096, PROT_READ) == 0);
        printf("filled %016lx\n", faults_fill(&faults, (unsigned char *)pages, NPAGES));
    }
}

static void divide(void)
{
    handle(SIGFPE, jump);
    for (volatile long by = -2; by <= 2; by++) {
        int landed = sigsetjmp(faults.back, 1);
        if (!landed)
            printf("by %ld %ld\n", by, faults_divide(&faults, by));
        else
            printf("by %ld landed %d\n", by, landed);
    }
}

static void undefined(void)
{
    handle(SIGILL, pass_by);
    for (int i = 0; i < 3; i++)
        printf("passed by %lx\n", faults_undefined(&faults));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"null", null}, {"inside", inside}, {"protected", protected}, {"divide", divide}, {"undefined", undefined}};
    ready();
    CHECK((stack = malloc(STACK)));
    stack_t alternative = {.ss_sp = stack, .ss_size = STACK};
    CHECK(sigaltstack(&alternative, NULL) == 0);
    pages = mmap(NULL, NPAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (argc > 1 && !strcmp(argv[1], modes[i].name))
            modes[i].run();
    printf("handled %d\n", handled);
    return success();
}
