/* loads MODE LIBRARY: opens libearly while running: dlopen, in namespaces of their own by dlmopen, again and elsewhere after
 * dlclose; or finds it loaded (preload). Each time its function is called three times by itself and twice from here. */
#define _GNU_SOURCE
#include "target.h"
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

typedef long function(long);

static function *call_of(void *library)
{
    function *call = (function *)dlsym(library, "early_call");
    CHECK(call);
    for (long i = 0; i < 2; i++) {
        printf("called %ld\n", call(i + 10));
        fflush(stdout);
    }
    return call;
}

static void namespaces(const char *path)
{
    for (int i = 0; i < 3; i++) {
        void *library = dlmopen(i ? LM_ID_NEWLM : LM_ID_BASE, path, RTLD_NOW | RTLD_LOCAL);
        CHECK(library);
        call_of(library);
    }
}

/* What is put where the library was has the same bytes as its function began with, and is nobody's split point. */
static void elsewhere(const char *path)
{
    static const unsigned char returns[] = {0x48, 0x8d, 0x47, 0x01, 0xc3}; /* lea rax, [rdi+1]; ret */
    for (int i = 0; i < 3; i++) {
        void *library = dlopen(path, RTLD_NOW);
        CHECK(library);
        function *before = call_of(library);
        CHECK(dlclose(library) == 0 && !dlopen(path, RTLD_NOW | RTLD_NOLOAD));
        char *page = (char *)((uintptr_t)before & -4096l);
        CHECK(mmap(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
        memcpy((char *)before, returns, sizeof returns);
        CHECK(before(41) == 42);
        library = dlopen(path, RTLD_NOW);
        CHECK(library && call_of(library) != before);
        CHECK(before(1) == 2 && *(unsigned char *)before == returns[0]);
        CHECK(dlclose(library) == 0);
        CHECK(munmap(page, 4096) == 0);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    ready();
    if (!strcmp(argv[1], "preload"))
        call_of(RTLD_DEFAULT);
    else if (!strcmp(argv[1], "dlmopen"))
        namespaces(argv[2]);
    else
        elsewhere(argv[2]);
    return success();
}
