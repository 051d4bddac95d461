#include "sizes.h"

/* n passes over n doubles: what is computed grows with the square of what is touched. */
double sizes_sum(const double *data, long n)
{
    double sum = 0;
    for (long pass = 0; pass < n; pass++)
        for (long i = 0; i < n; i++)
            sum = sum * 0.999 + data[i];
    return sum;
}

/* Does next to nothing. */
long sizes_short(long value)
{
    return value + 1;
}
