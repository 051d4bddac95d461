/* The function writes and reads memory that the kernel may drop, and nobody can watch; main writes it as well. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "droppable.h"
#include "target.h"

int main(void)
{
    char *data = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    CHECK(data != MAP_FAILED);
    ready();
    long sum = 0;
    for (int i = 0; i < 20; i++) {
        data[4096] = i;
        sum += droppable_call(data, 3 * 4096);
        CHECK(data[5000] == i + 1);
    }
    printf("%ld\n", sum);
    return success();
}
