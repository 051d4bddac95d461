/* memory SEED [COUNT] [STEPS]: random programs of memory operations, COUNT of them with seeds SEED, SEED+1, ...
 * Every step runs one operation, in libmemory or in main by the seed's choice, and prints a checksum of everything
 * that the program can see: all readable slots, brk memory, globals, TLS, the operation's result and errno.
 * No address is printed. */
#define NAME(operation) local_##operation
#define LINKAGE static
#include "memory_ops.h"
#undef NAME
#undef LINKAGE
#define NAME(operation) op_##operation

#define DECLARE(name) operation op_##name;
OPERATIONS(DECLARE)

#define ENTRY(name) {#name, {local_##name, op_##name}},
static const struct { const char *name; operation *run[2]; } table[] = {OPERATIONS(ENTRY)};
enum { COUNT = sizeof table / sizeof *table };

static uint64_t everything(const struct machine *m)
{
    uint64_t hash = FNV_START;
    for (int i = 0; i < SLOTS; i++) {
        const struct slot *s = &m->slot[i];
        hash = fnv(hash, &s->size, sizeof s->size) + (uint64_t)s->kind + (uint64_t)s->prot;
        if (s->kind != EMPTY && s->prot & PROT_READ)
            hash = fnv(hash, s->at, s->size);
    }
    hash = fnv(hash, m->brk_at, m->brk_size);
    hash = fnv(hash, machine_globals, sizeof machine_globals);
    return fnv(hash, machine_tls, sizeof machine_tls);
}

static void check_apart(const struct machine *m)
{
    for (int i = 0; i < SLOTS; i++)
        for (int j = 0; j < i; j++)
            if (m->slot[i].kind != EMPTY && m->slot[j].kind != EMPTY)
                CHECK(m->slot[i].at + m->slot[i].size <= m->slot[j].at || m->slot[j].at + m->slot[j].size <= m->slot[i].at);
}

static void run(struct machine *m, uint64_t seed, long steps)
{
    for (long step = 0; step < steps; step++) {
        size_t chosen = next_random(&seed) % COUNT, split = next_random(&seed) % 2;
        errno = 0;
        uint64_t result = table[chosen].run[split](m, &seed);
        int number = errno;
        check_apart(m);
        printf("%ld %s %s %016lx %d %016lx\n", step, table[chosen].name, split ? "split" : "local", result, number,
               everything(m));
    }
}

static void empty(struct machine *m)
{
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &m->slot[i];
        if (s->kind == HEAP)
            free(s->at);
        else if (s->kind != EMPTY)
            CHECK(munmap(s->at, s->size) == 0);
        *s = (struct slot){0};
    }
}

static int filled_file(void)
{
    static unsigned char page[PAGE];
    FILE *file = tmpfile();
    CHECK(file);
    for (int i = 0; i < 32; i++) {
        fill(page, PAGE, (uint64_t)i * 12345);
        CHECK(fwrite(page, PAGE, 1, file) == 1);
    }
    CHECK(fflush(file) == 0);
    return fileno(file);
}

int main(int argc, char **argv)
{
    long seed = argument(argc, argv, 1, 1), count = argument(argc, argv, 2, 1), steps = argument(argc, argv, 3, 100);
    struct machine m = {.file = filled_file()};
    ready();
    for (long i = seed; i < seed + count; i++) {
        printf("seed %ld\n", i);
        run(&m, (uint64_t)i, steps);
        empty(&m);
    }
    return success();
}
