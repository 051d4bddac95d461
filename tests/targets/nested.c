/* nested: a split function that cannot finish away, and calls another one before and after. */
#include "target.h"
#include <string.h>
#include <sys/mman.h>

long nested_outer(long n);
long nested_inner(long n);
unsigned long nested_sum(const unsigned char *at, unsigned long nbytes);

static __attribute__((noinline)) long through_a_pointer(long (*function)(long), long n)
{
    return function(n) + 1;
}

/* A caller whose code goes, and other contents take its place. */
static void from_code_that_goes(void)
{
    /* sub rsp, 8; mov rax, rsi; call rax; add rsp, 8; ret */
    static const unsigned char code[] = {0x48, 0x83, 0xec, 8, 0x48, 0x89, 0xf0, 0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3};
    FILE *file = tmpfile();
    CHECK(file && fwrite(code, sizeof code, 1, file) == 1 && fflush(file) == 0);
    unsigned char *at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(file), 0);
    CHECK(at != MAP_FAILED);
    long (*call)(long, long (*)(long)) = (long (*)(long, long (*)(long)))at;
    printf("from code that goes %ld\n", call(2, nested_outer));
    CHECK(munmap(at, 4096) == 0);
    CHECK(mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
    memset(at, 7, 4096);
    printf("what took its place %016lx\n", nested_sum(at, 4096));
}

int main(void)
{
    ready();
    from_code_that_goes();
    for (long i = 0; i < 3; i++) {
        printf("outer %ld\n", nested_outer(3));
        printf("inner %ld\n", nested_inner(i));
        /* Both return to the same place. */
        printf("by pointer %ld\n", through_a_pointer(nested_outer, 2));
        printf("by pointer %ld\n", through_a_pointer(nested_inner, i));
    }
    return success();
}
