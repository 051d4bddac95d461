/* The random machine's operations. Included twice: as local functions (NAME(x) = local_x) and as the functions of
 * libmemory (NAME(x) = op_x). Each takes its random choices from *seed, so that both do the same. */
#ifndef MEMORY_OPS_H
#define MEMORY_OPS_H
#define _GNU_SOURCE
#include "target.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum kind { EMPTY, HEAP, ANON, SHARED, FILED };
enum { SLOTS = 12, PAGE = 4096, GLOBALS = 5000, BRK_MAX = 64 * PAGE };

struct slot {
    unsigned char *at;
    size_t size;
    enum kind kind;
    int prot; /* of the whole slot */
};

struct machine {
    struct slot slot[SLOTS];
    unsigned char *brk_at; /* memory taken by sbrk; none when brk_size == 0 */
    size_t brk_size;
    int file; /* 32 pages */
};

extern uint64_t machine_globals[GLOBALS];
extern __thread uint64_t machine_tls[64];

typedef uint64_t operation(struct machine *m, uint64_t *seed);

#define OPERATIONS(X)                                                                                              \
    X(write) X(read) X(copy) X(clear) X(malloc) X(free) X(realloc) X(mmap) X(munmap) X(mprotect) X(dontneed)       \
    X(mremap) X(brk) X(recurse) X(tls) X(errno) X(globals) X(scratch) X(mapfile) X(nothing)

/* A random slot whose kind is in the bit set `kinds` and whose protection has all of `prot`; NULL when there is none. */
static inline struct slot *pick(struct machine *m, uint64_t *seed, unsigned kinds, int prot)
{
    size_t first = next_random(seed) % SLOTS;
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *s = &m->slot[(first + i) % SLOTS];
        if (kinds >> s->kind & 1 && (s->kind == EMPTY || (s->prot & prot) == prot))
            return s;
    }
    return NULL;
}

#define KIND(k) (1u << (k))
#define MAPPED (KIND(ANON) | KIND(SHARED) | KIND(FILED))
#define FULL (MAPPED | KIND(HEAP))

static inline void fill(unsigned char *at, size_t nbytes, uint64_t pattern)
{
    for (size_t i = 0; i < nbytes; i++)
        at[i] = (unsigned char)(pattern >> (i % 8 * 8)) + (unsigned char)(i >> 3);
}

static inline size_t random_size(uint64_t *seed)
{
    static const size_t limit[] = {200, 20000, 300000};
    return 1 + next_random(seed) % limit[next_random(seed) % 3];
}
#endif

static uint64_t NAME(depth)(uint64_t depth, uint64_t mix)
{
    volatile unsigned char frame[PAGE + 100];
    frame[mix % sizeof frame] = (unsigned char)mix;
    frame[0] = (unsigned char)depth;
    uint64_t below = depth ? NAME(depth)(depth - 1, mix * 31 + depth) : mix;
    return below + frame[0] + frame[mix % sizeof frame];
}

LINKAGE uint64_t NAME(write)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, FULL, PROT_WRITE);
    if (!s)
        return 1;
    size_t from = next_random(seed) % s->size, nbytes = 1 + next_random(seed) % 20000;
    fill(s->at + from, nbytes < s->size - from ? nbytes : s->size - from, next_random(seed));
    return from;
}

LINKAGE uint64_t NAME(read)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, FULL, PROT_READ);
    return s ? fnv(FNV_START, s->at, s->size) : 2;
}

LINKAGE uint64_t NAME(copy)(struct machine *m, uint64_t *seed)
{
    struct slot *from = pick(m, seed, FULL, PROT_READ), *to = pick(m, seed, FULL, PROT_READ | PROT_WRITE);
    if (!from || !to)
        return 3;
    size_t nbytes = from->size < to->size ? from->size : to->size;
    memmove(to->at + (to->size - nbytes) / 2, from->at, nbytes);
    return nbytes;
}

LINKAGE uint64_t NAME(clear)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, FULL, PROT_WRITE);
    if (!s)
        return 4;
    memset(s->at, 0, s->size);
    return s->size;
}

LINKAGE uint64_t NAME(malloc)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(EMPTY), 0);
    size_t size = random_size(seed);
    if (!s)
        return 5;
    int zeroed = next_random(seed) % 4 == 0; /* calloc relies on fresh mappings being zero */
    unsigned char *at = zeroed ? calloc(1, size) : malloc(size);
    if (!zeroed)
        fill(at, size, next_random(seed));
    *s = (struct slot){at, size, HEAP, PROT_READ | PROT_WRITE};
    return size;
}

LINKAGE uint64_t NAME(free)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(HEAP), 0);
    if (!s)
        return 6;
    free(s->at);
    *s = (struct slot){0};
    return 0;
}

LINKAGE uint64_t NAME(realloc)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(HEAP), 0);
    size_t size = random_size(seed);
    if (!s)
        return 7;
    s->at = realloc(s->at, size);
    if (size > s->size)
        fill(s->at + s->size, size - s->size, size);
    s->size = size;
    return fnv(FNV_START, s->at, size);
}

LINKAGE uint64_t NAME(mmap)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(EMPTY), 0);
    size_t npages = 1 + next_random(seed) % 20;
    int shared = next_random(seed) % 4 == 0;
    if (!s)
        return 8;
    unsigned char *at = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE,
                             (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
    *s = (struct slot){at, npages * PAGE, shared ? SHARED : ANON, PROT_READ | PROT_WRITE};
    for (size_t page = 0; page < npages; page += 1 + next_random(seed) % 3)
        fill(at + page * PAGE, PAGE / 2, next_random(seed));
    return npages;
}

LINKAGE uint64_t NAME(munmap)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, MAPPED, 0);
    if (!s)
        return 9;
    size_t drop = (1 + next_random(seed) % (s->size / PAGE)) * PAGE;
    int head = next_random(seed) % 2;
    if (munmap(head ? s->at : s->at + s->size - drop, drop))
        return 99;
    s->at += head ? drop : 0;
    s->size -= drop;
    if (!s->size)
        *s = (struct slot){0};
    return drop;
}

LINKAGE uint64_t NAME(mprotect)(struct machine *m, uint64_t *seed)
{
    static const int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
    struct slot *s = pick(m, seed, MAPPED, 0);
    if (!s)
        return 10;
    s->prot = protections[next_random(seed) % 4];
    return (uint64_t)mprotect(s->at, s->size, s->prot) + (uint64_t)s->prot;
}

LINKAGE uint64_t NAME(dontneed)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, MAPPED, 0);
    if (!s)
        return 11;
    size_t npages = s->size / PAGE, first = next_random(seed) % npages, count = 1 + next_random(seed) % (npages - first);
    if (madvise(s->at + first * PAGE, count * PAGE, MADV_DONTNEED))
        return 111;
    return s->prot & PROT_READ ? fnv(FNV_START, s->at, s->size) : count;
}

LINKAGE uint64_t NAME(mremap)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(ANON), PROT_READ);
    size_t size = (1 + next_random(seed) % 24) * PAGE;
    if (!s)
        return 12;
    unsigned char *at = mremap(s->at, s->size, size, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
        return 112;
    s->at = at;
    s->size = size;
    return fnv(FNV_START, at, size);
}

LINKAGE uint64_t NAME(brk)(struct machine *m, uint64_t *seed)
{
    size_t by = (1 + next_random(seed) % 8) * PAGE;
    unsigned char *now = sbrk(0);
    if (m->brk_size && now == m->brk_at + m->brk_size && next_random(seed) % 2) {
        size_t drop = by < m->brk_size ? by : m->brk_size;
        sbrk(-(intptr_t)drop);
        m->brk_size -= drop;
        return drop;
    }
    if (m->brk_size && (now != m->brk_at + m->brk_size || m->brk_size + by > BRK_MAX))
        return 13;
    unsigned char *at = sbrk((intptr_t)by);
    if (!m->brk_size)
        m->brk_at = at;
    m->brk_size += by;
    fill(at, by / 2, next_random(seed)); /* the other half is the kernel's zeros */
    return by;
}

LINKAGE uint64_t NAME(recurse)(struct machine *m, uint64_t *seed)
{
    (void)m;
    return NAME(depth)(next_random(seed) % 150, next_random(seed) >> 40);
}

LINKAGE uint64_t NAME(tls)(struct machine *m, uint64_t *seed)
{
    (void)m;
    uint64_t *variable = &machine_tls[next_random(seed) % 64];
    return *variable = *variable * 3 + next_random(seed);
}

LINKAGE uint64_t NAME(errno)(struct machine *m, uint64_t *seed)
{
    (void)m;
    errno = (int)(1 + next_random(seed) % 100);
    return 14;
}

LINKAGE uint64_t NAME(globals)(struct machine *m, uint64_t *seed)
{
    (void)m;
    uint64_t sum = 0;
    for (int i = 0; i < 10; i++)
        sum += machine_globals[next_random(seed) % GLOBALS] += next_random(seed);
    return sum;
}

LINKAGE uint64_t NAME(scratch)(struct machine *m, uint64_t *seed)
{
    (void)m;
    size_t size = (1 + next_random(seed) % 50) * PAGE;
    unsigned char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *heap = malloc(size);
    fill(at, size, next_random(seed));
    memcpy(heap, at, size);
    uint64_t hash = fnv(FNV_START, heap, size);
    munmap(at, size);
    free(heap);
    return hash;
}

LINKAGE uint64_t NAME(mapfile)(struct machine *m, uint64_t *seed)
{
    struct slot *s = pick(m, seed, KIND(EMPTY), 0);
    size_t npages = 1 + next_random(seed) % 16, first = next_random(seed) % 16;
    if (!s)
        return 15;
    unsigned char *at = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, m->file, (off_t)(first * PAGE));
    if (at == MAP_FAILED)
        return 115;
    *s = (struct slot){at, npages * PAGE, FILED, PROT_READ | PROT_WRITE};
    at[next_random(seed) % s->size] ^= 0x55;
    return fnv(FNV_START, at, s->size);
}

LINKAGE uint64_t NAME(nothing)(struct machine *m, uint64_t *seed)
{
    (void)m;
    return *seed;
}
