#include "droppable.h"

long droppable_call(char *data, long nbytes)
{
    long sum = 0;
    for (long i = 0; i < nbytes; i++)
        sum += data[i];
    data[5000] = data[4096] + 1;
    return sum;
}
