/* null [CALLS]: calls null_call and prints the sum of what came back. */
#include "target.h"

long null_call(long x);

int main(int argc, char **argv)
{
    long calls = argument(argc, argv, 1, 100), sum = 0;
    ready();
    for (long i = 0; i < calls; i++) {
        long back = null_call(i * 3 + 1);
        CHECK(back == i * 3 + 1);
        sum += back;
    }
    printf("calls %ld sum %ld\n", calls, sum);
    return success();
}
