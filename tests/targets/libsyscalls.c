#define _GNU_SOURCE
#include "target.h"
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Counts before and after the write: run twice, or half, the counter tells. */
long sys_print(long *counter, const char *line)
{
    *counter += 1;
    long written = write(1, line, strlen(line));
    *counter += 100;
    return written;
}

uint64_t sys_read_file(const char *path)
{
    static char buffer[10000];
    int file = open(path, O_RDONLY);
    if (file < 0)
        return 0;
    ssize_t got = read(file, buffer, sizeof buffer);
    close(file);
    return got > 0 ? fnv(FNV_START, buffer, (size_t)got) : 1;
}

long sys_getpid(void)
{
    return getpid();
}

long sys_clock(void)
{
    struct timespec first, second;
    clock_gettime(CLOCK_MONOTONIC, &first);
    clock_gettime(CLOCK_MONOTONIC, &second);
    return (second.tv_sec - first.tv_sec) * 1000000000 + second.tv_nsec - first.tv_nsec >= 0;
}

int sys_sleep(long ns)
{
    struct timespec time = {0, ns};
    return nanosleep(&time, NULL);
}

long sys_random(unsigned char *bytes, long nbytes)
{
    return getrandom(bytes, (size_t)nbytes, 0);
}
