/* signals timer|prof|usr1|jump|segv|repair|fpe|ill|mask|ignored [ROUNDS]: signals during split calls. */
#define _GNU_SOURCE
#include "target.h"
#include "work.h"
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { WORDS = 4096 };
static uint64_t words[WORDS] = {1};
static volatile sig_atomic_t handled;
static long rounds;
static sigjmp_buf back;
static siginfo_t seen;

static void on_signal(int number)
{
    (void)number;
    handled++;
}

static void on_jump(int number)
{
    siglongjmp(back, number);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    seen = *info;
    siglongjmp(back, number);
}

static void on_repairable(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    handled++;
    CHECK(mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE) == 0);
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void handle_info(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void calls(void)
{
    for (long i = 0; i < rounds; i++)
        printf("%ld %016lx\n", i, work_mix(words, WORDS, 200)), pace();
}

static void timer(int which, int number)
{
    struct itimerval every = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    handle(number, on_signal, SA_RESTART);
    setitimer(which, &every, NULL);
    calls();
    while (!handled)
        ;
    setitimer(which, &never, NULL);
}

static void usr1(void)
{
    handle(SIGUSR1, on_signal, SA_RESTART);
    puts("WAITING");
    fflush(stdout);
    while (handled < rounds)
        work_mix(words, WORDS, 20);
    printf("handled %d\n", (int)handled >= (int)rounds);
}

static void jump(void)
{
    static volatile uint64_t counter;
    struct itimerval soon = {{0, 0}, {0, 20000}};
    handle(SIGALRM, on_jump, 0);
    for (volatile long i = 0; i < rounds; i++, pace()) {
        int number = sigsetjmp(back, 1);
        if (!number) {
            setitimer(ITIMER_REAL, &soon, NULL);
            work_forever(&counter);
        }
        printf("jumped by %d %016lx\n", number, work_mix(words, WORDS, 1));
    }
}

static void segv(void)
{
    static volatile long before;
    handle_info(SIGSEGV, on_fault);
    for (volatile long i = 1; i <= rounds; i++, pace()) {
        int number = sigsetjmp(back, 1);
        if (!number)
            work_poke(&before, (long *)0x1230, i);
        printf("signal %d address %p code %d before %ld %016lx\n", number, seen.si_addr, seen.si_code, before,
               work_mix(words, WORDS, 1));
    }
}

static void repair(void)
{
    static volatile long before;
    long *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    handle_info(SIGSEGV, on_repairable);
    for (long i = 1; i <= rounds; i++, pace()) {
        CHECK(mprotect(page, 4096, PROT_READ) == 0);
        work_poke(&before, page + 5, i);
        printf("before %ld at %ld handled %d\n", before, page[5], (int)handled);
    }
}

static void fpe(void)
{
    handle_info(SIGFPE, on_fault);
    for (volatile long i = 0; i < rounds; i++, pace()) {
        int number = sigsetjmp(back, 1);
        if (!number)
            printf("quotient %d\n", work_divide((int)i, 0));
        printf("signal %d code %d then %d\n", number, seen.si_code, work_divide((int)i * 6, 3));
    }
}

static void ill(void)
{
    handle_info(SIGILL, on_fault);
    for (volatile long i = 0; i < rounds; i++, pace()) {
        int number = sigsetjmp(back, 1);
        if (!number)
            work_illegal();
        printf("signal %d code %d\n", number, seen.si_code);
    }
}

static void mask(void)
{
    sigset_t alarm, pending;
    struct itimerval soon = {{0, 0}, {0, 2000}};
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    handle(SIGALRM, on_signal, 0);
    CHECK(sigprocmask(SIG_BLOCK, &alarm, NULL) == 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    calls();
    do
        CHECK(sigpending(&pending) == 0);
    while (!sigismember(&pending, SIGALRM));
    CHECK(handled == 0);
    CHECK(sigprocmask(SIG_UNBLOCK, &alarm, NULL) == 0);
    printf("handled %d\n", (int)handled);
}

static void ignored(void)
{
    struct itimerval every = {{0, 2000}, {0, 2000}};
    handle(SIGALRM, SIG_IGN, 0);
    setitimer(ITIMER_REAL, &every, NULL);
    calls();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "timer";
    rounds = argument(argc, argv, 2, 5);
    ready();
    if (!strcmp(mode, "timer"))
        timer(ITIMER_REAL, SIGALRM);
    else if (!strcmp(mode, "prof"))
        timer(ITIMER_PROF, SIGPROF);
    else if (!strcmp(mode, "usr1"))
        usr1();
    else if (!strcmp(mode, "jump"))
        jump();
    else if (!strcmp(mode, "segv"))
        segv();
    else if (!strcmp(mode, "repair"))
        repair();
    else if (!strcmp(mode, "fpe"))
        fpe();
    else if (!strcmp(mode, "ill"))
        ill();
    else if (!strcmp(mode, "mask"))
        mask();
    else
        ignored();
    return success();
}
