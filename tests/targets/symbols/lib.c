/* A library with each kind of symbol that the resolver tells apart.
 * -DPADDING moves every address; -DVERSIONS needs lib.map as version script. */

#define KEEP __attribute__((noinline, used))

#ifdef PADDING
int padding(int x) { return x * 31 + (x >> 3) * 17 + (x >> 5) * 13 + (x << 2); }
int more_padding(int x) { return padding(x) ^ padding(x + 1) ^ padding(x + 2); }
#endif

int lib_table[4] = {1, 2, 3, 4};
__thread int lib_thread_local;

KEEP static int lib_static(int x) { return x + lib_table[0]; }

KEEP __attribute__((visibility("hidden"))) int lib_hidden(int x) { return x - 1; }

__attribute__((visibility("protected"))) int lib_protected(int x) { return x + 3; }

int lib_add(int x) { return lib_static(x) + lib_hidden(x); }

int lib_add_alias(int x) __attribute__((alias("lib_add")));

__attribute__((weak)) int lib_weak(int x) { return x * 2; }

static int chosen_first(int x) { return x + 100; }
static int chosen_second(int x) { return x + 200; }

/* Chooses at run time, so that the answer is not in the file. */
static int (*choose(void))(int) { return lib_table[3] == 4 ? chosen_second : chosen_first; }

int lib_chosen(int x) __attribute__((ifunc("choose")));

#ifdef VERSIONS
int versioned_old(int x) { return x - 1000; }
int versioned_new(int x) { return x + 1000; }
int only_old(int x) { return x - 2000; }
__asm__(".symver versioned_old, lib_versioned@OLD_1");
__asm__(".symver versioned_new, lib_versioned@@NEW_2");
__asm__(".symver only_old, lib_only_old@OLD_1");
#endif
