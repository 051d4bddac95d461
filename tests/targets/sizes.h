double sizes_sum(const double *data, long n);
long sizes_short(long value);
