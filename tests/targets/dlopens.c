/* dlopens LIBRARY: opens libnull while running, calls null_call, closes it and opens it again. */
#include "target.h"
#include <dlfcn.h>

/* A split point of the program itself: a stop at which a new library can be seen. */
__attribute__((noinline)) long main_call(long x)
{
    __asm__ volatile("" : "+r"(x));
    return x + 1;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    ready();
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        CHECK(library);
        long (*null_call)(long) = (long (*)(long))dlsym(library, "null_call");
        CHECK(null_call);
        for (long i = 0; i < 5; i++)
            printf("%ld %ld\n", main_call(i), null_call(i * 7));
        CHECK(dlclose(library) == 0);
        CHECK(main_call(9) == 10);
    }
    return success();
}
