/* ifunc: calls an IFUNC, and one function by two names. */
#include "target.h"

long ifunc_call(long x);
long alias_one(long x);
long alias_two(long x);

int main(void)
{
    ready();
    for (long i = 0; i < 10; i++)
        printf("%ld %ld %ld\n", ifunc_call(i), alias_one(i), alias_two(i));
    return success();
}
