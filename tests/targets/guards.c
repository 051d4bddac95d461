/* Guard pages in the middle of memory that the function reads, coming and going; it also runs into one. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "guards.h"
#include "target.h"

enum { PAGE = 4096, PAGES = 16 };
static sigjmp_buf before;
static volatile char *address;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    address = info->si_addr;
    siglongjmp(before, 1);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    char *data = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED && !sigaction(SIGSEGV, &action, NULL));
    memset(data, 1, PAGES * PAGE);
    ready();
    for (int page = 3; page < PAGES; page += 4) {
        /* First pages that are held, then ones that never were. */
        printf("%ld\n", guards_call(data, page * PAGE));
        CHECK(!madvise(data + page * PAGE, PAGE, MADV_GUARD_INSTALL));
        CHECK(!madvise(data + (page - 1) * PAGE, PAGE, MADV_GUARD_INSTALL));
        printf("%ld\n", guards_call(data, (page - 1) * PAGE));
        if (!sigsetjmp(before, 1))
            guards_call(data, page * PAGE);
        CHECK(address == data + (page - 1) * PAGE);
        CHECK(!madvise(data + (page - 1) * PAGE, 2 * PAGE, MADV_GUARD_REMOVE));
        printf("%ld\n", guards_call(data, (page + 1) * PAGE));
    }
    return success();
}
