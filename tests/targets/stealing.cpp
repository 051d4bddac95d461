// stealing [ROUNDS]: the same pool of workers, used by split calls and at home in turn.
#include "stealing.h"
#include "target.h"

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 4);
    ready();
    for (long i = 0; i < rounds; i++) {
        printf("%ld %lx %lx", i, steal_sum(100001), steal_sum(100000 + 2 * i));
        printf(" %lx %lx", steal_sort(20000 + 2 * i), steal_sort(20001));
        printf(" %lx %lx\n", steal_nested(30), steal_nested(31));
    }
    return success();
}
