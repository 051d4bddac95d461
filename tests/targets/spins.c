/* spins: computes for ever, in no function that is exported. */
int main(void)
{
    volatile unsigned long n = 0;
    for (;;)
        n++;
}
