/* syscalls [ROUNDS]: split functions that make system calls. */
#include "target.h"
#include <string.h>

long sys_print(long *counter, const char *line);
uint64_t sys_read_file(const char *path);
long sys_getpid(void);
long sys_clock(void);
int sys_sleep(long ns);
long sys_random(unsigned char *bytes, long nbytes);

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 3), counter = 0;
    unsigned char random[64] = {0}, zeros[64] = {0};
    ready();
    for (long i = 0; i < rounds; i++) {
        fflush(stdout);
        printf("wrote %ld\n", sys_print(&counter, "a line of the call\n"));
        printf("counter %ld file %016lx\n", counter, sys_read_file(argv[0]));
        CHECK(sys_getpid() == getpid());
        CHECK(sys_clock() == 1);
        CHECK(sys_sleep(1000000) == 0);
        CHECK(sys_random(random, sizeof random) == sizeof random);
        CHECK(memcmp(random, zeros, sizeof random));
    }
    return success();
}
