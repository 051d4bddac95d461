/* truncated MODE private|shared [ROUNDS]: the mapping of a file that changes under it. The handler of SIGBUS makes the
 * file long again. MODE: inside, outside, jump, part, rewritten, between or stored. */
#define _GNU_SOURCE
#include "truncated.h"
#include "target.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

static int file, handled, jumps;
static const volatile uint64_t *words;
static volatile uint64_t *other;
static sigjmp_buf back;
static char *stack;

static void fill(int round)
{
    uint64_t state = (uint64_t)round + 1, page[PAGE / 8];
    CHECK(ftruncate(file, 0) == 0);
    for (int n = 0; n < NPAGES; n++) {
        for (int i = 0; i < PAGE / 8; i++)
            page[i] = next_random(&state);
        CHECK(pwrite(file, page, PAGE, n * PAGE) == PAGE);
    }
}

/* What it adds is zeros. */
static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)context;
    char here;
    CHECK(&here >= stack && &here < stack + SIGSTKSZ);
    long at = (const char *)info->si_addr - (const char *)words;
    printf("signal %d code %d page %ld\n", number, info->si_code, at / PAGE);
    handled++;
    CHECK(ftruncate(file, NPAGES * PAGE) == 0);
    if (jumps)
        siglongjmp(back, 1);
}

static void round_of(const char *mode, int round)
{
    fill(round);
    for (int i = 0; i < 3; i++)
        printf("filled %016lx\n", truncated_sum(words, NPAGES));
    if (!strcmp(mode, "inside")) {
        printf("inside %016lx\n", truncated_inside(words, file, 3 * PAGE));
    } else if (!strcmp(mode, "part")) {
        printf("part %016lx\n", truncated_inside(words, file, 3 * PAGE + 1024));
    } else if (!strcmp(mode, "jump")) {
        jumps = 1;
        if (!sigsetjmp(back, 1))
            printf("inside %016lx\n", truncated_inside(words, file, 5 * PAGE));
        else
            printf("jumped\n");
    } else if (!strcmp(mode, "outside")) {
        CHECK(ftruncate(file, 2 * PAGE) == 0);
        printf("after %016lx\n", truncated_sum(words, NPAGES));
    } else if (!strcmp(mode, "rewritten")) {
        printf("rewritten %016lx\n", truncated_rewritten(words, file, 2 * PAGE + 512, 0x1234));
    } else if (!strcmp(mode, "stored")) {
        other[4 * PAGE / 8] = 0x5678;
        printf("after %016lx\n", truncated_sum(words, NPAGES));
    } else {
        uint64_t value = 0x4321;
        CHECK(pwrite(file, &value, sizeof value, 4 * PAGE) == sizeof value);
        printf("after %016lx\n", truncated_sum(words, NPAGES));
    }
    printf("now %016lx\n", truncated_sum(words, NPAGES));
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "inside";
    int is_shared = argc > 2 && !strcmp(argv[2], "shared");
    long rounds = argument(argc, argv, 3, 3);
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    ready();
    CHECK((stack = malloc(SIGSTKSZ)));
    stack_t alternative = {.ss_sp = stack, .ss_size = SIGSTKSZ};
    CHECK(sigaltstack(&alternative, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    CHECK((file = open(".", O_TMPFILE | O_RDWR, 0600)) >= 0);
    fill(0);
    words = mmap(NULL, NPAGES * PAGE, PROT_READ, is_shared ? MAP_SHARED : MAP_PRIVATE, file, 0);
    CHECK(words != MAP_FAILED);
    if (!strcmp(mode, "stored"))
        CHECK((other = mmap(NULL, NPAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)) != MAP_FAILED);
    for (volatile long i = 0; i < rounds; i++)
        round_of(mode, (int)i), pace();
    printf("handled %d\n", handled);
    return success();
}
