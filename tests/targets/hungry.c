/* hungry: a call that needs little memory, and one that needs a gigabyte. */
#include "target.h"

int slow_map(size_t nbytes);

int main(void)
{
    ready();
    printf("%d %d\n", slow_map(1 << 20), slow_map(1ul << 30));
    return success();
}
