// throwing: exceptions, and returns, that pass a function whose calls somebody may be counting.
#include "target.h"
#include <stdexcept>
#include <thread>

extern "C" __attribute__((noinline)) long throwing_task(long n)
{
    if (n % 3 == 0)
        throw std::runtime_error("third");
    return n;
}

extern "C" __attribute__((noinline)) long passing_task(long n)
{
    return throwing_task(n) + 1;
}

static long caught, sum;

static void call(long n)
{
    try {
        sum += passing_task(n);
    } catch (const std::runtime_error &) {
        caught++;
    }
}

static void call_for_ever()
{
    for (long n = 0;; n++)
        call(3 * n);
}

int main(int argc, char **)
{
    if (argc > 1) {
        std::thread other(call_for_ever);
        ready();
        call_for_ever();
    }
    ready();
    char go;
    CHECK(read(0, &go, 1) == 1);
    for (long n = 0; n < 300; n++)
        call(n);
    printf("caught %ld, sum %ld\n", caught, sum);
    puts("CALLED");
    fflush(stdout);
    CHECK(read(0, &go, 1) == 1);
    return success();
}
