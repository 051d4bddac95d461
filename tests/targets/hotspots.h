double outer_work(long n);
long recursive_work(long depth, long n);
double sized_work(const int *n, long scale);
long recursive_task(long depth);
void tail_task(long depth);
long tiny_task(long n);
