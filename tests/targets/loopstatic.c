/* loopstatic: a program without a dynamic linker; runs until a byte or the end of stdin. */
#include "target.h"

int main(void)
{
    char byte;
    ready();
    if (read(0, &byte, 1) < 0)
        return 1;
    return success();
}
