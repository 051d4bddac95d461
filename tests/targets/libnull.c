/* The smallest call: no memory is touched. */
long null_call(long x)
{
    return x;
}
