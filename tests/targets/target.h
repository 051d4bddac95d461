/* What every target shares: a ready line, checks, a seeded generator and a checksum. */
#ifndef TARGET_H
#define TARGET_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);         \
            fflush(stdout);                                                       \
            _exit(1);                                                             \
        }                                                                         \
    } while (0)

/* Says READY and, with TARGET_HOLD in the environment, waits until a byte arrives on stdin. */
static inline void ready(void)
{
    char go;
    puts("READY");
    fflush(stdout);
    if (getenv("TARGET_HOLD"))
        CHECK(read(0, &go, 1) == 1);
}

/* Between two rounds: with TARGET_PACE_MS in the environment it takes that long, so that faults have time to come. */
static inline void pace(void)
{
    const char *ms = getenv("TARGET_PACE_MS");
    if (ms)
        usleep((useconds_t)atol(ms) * 1000);
}

static inline int success(void)
{
    puts("EXIT-SUCCESS");
    fflush(stdout);
    return 0;
}

#define FNV_START 0xcbf29ce484222325ull

/* FNV-1a over 64-bit words where it can, bytes for the rest. */
static inline uint64_t fnv(uint64_t hash, const void *data, size_t nbytes)
{
    const unsigned char *bytes = (const unsigned char *)data;
    for (; nbytes >= 8; nbytes -= 8, bytes += 8)
        hash = (hash ^ *(const uint64_t *)bytes) * 0x100000001b3ull, hash ^= hash >> 29;
    for (; nbytes; nbytes--)
        hash = (hash ^ *bytes++) * 0x100000001b3ull;
    return hash;
}

/* splitmix64 */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline long argument(int argc, char **argv, int at, long otherwise)
{
    return argc > at ? atol(argv[at]) : otherwise;
}
#endif
