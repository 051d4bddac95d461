/* reloads LIBRARY ROUNDS CALLS: opens libhammer, calls hammer_push, and closes it again. */
#include "target.h"
#include <dlfcn.h>

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    ready();
    for (int round = 0; round < atoi(argv[2]); round++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        CHECK(library);
        long (*push)(long) = (long (*)(long))dlsym(library, "hammer_push");
        CHECK(push);
        for (long x = 0; x < atol(argv[3]); x++)
            CHECK(push(x) == 3 * x + 1);
        CHECK(dlclose(library) == 0);
    }
    return success();
}
