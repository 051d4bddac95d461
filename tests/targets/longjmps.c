/* longjmps: split functions that jump out of themselves. */
#include "target.h"
#include <setjmp.h>

long jump_out(sigjmp_buf back, long n, long *written);
long jump_inside(long n);

int main(void)
{
    static sigjmp_buf back;
    static long written;
    ready();
    for (volatile long n = 0; n < 10; n++) {
        int landed = sigsetjmp(back, 0);
        if (!landed)
            printf("returned %ld\n", jump_out(back, n, &written));
        printf("landed %d written %ld inside %ld\n", landed, written, jump_inside(n));
    }
    return success();
}
