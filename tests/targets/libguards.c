#include "guards.h"

long guards_call(volatile char *data, long nbytes)
{
    long sum = 0;
    for (long i = 0; i < nbytes; i++)
        sum += data[i];
    data[0]++;
    return sum;
}
