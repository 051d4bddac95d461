unsigned long mixture_mix(long n, unsigned long seed);
