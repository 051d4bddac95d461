// cppthreads [ROUNDS]: C++'s threads and futures inside split calls.
#include "cppthreads.h"
#include "target.h"

int main(int argc, char **argv)
{
    long rounds = argument(argc, argv, 1, 4);
    ready();
    for (long i = 0; i < rounds; i++)
        printf("%ld %ld %ld %ld\n", i, cpp_threads(2 + i), cpp_async(3 + i), cpp_handshake(10));
    return success();
}
