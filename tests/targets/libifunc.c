/* An IFUNC: the dynamic linker takes what the resolver returns. */
static long plain(long x) { return x * 2 + 1; }
static long other(long x) { return x * 2 + 2; }
static long (*resolve(void))(long) { return __builtin_cpu_supports("sse2") ? plain : other; }
long ifunc_call(long x) __attribute__((ifunc("resolve")));

/* Several names of one address. */
long alias_one(long x) { return x - 1; }
long alias_two(long x) __attribute__((alias("alias_one")));
