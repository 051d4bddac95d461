/* limited: a call that maps more than the process's own limit allows, and then one that does not. */
#include "target.h"
#include <sys/resource.h>

int slow_map(size_t nbytes);

int main(void)
{
    ready();
    CHECK(slow_map(1 << 20) == 1);
    struct rlimit limit = {1ul << 30, 1ul << 30};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    printf("%d %d %d\n", slow_map(2ul << 30), slow_map(1 << 20), slow_map(3ul << 30));
    return success();
}
