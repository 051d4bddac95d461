// unwinding MODE [ROUNDS]: split calls that are left by unwinding. MODE: throw, thread, cancel, compute, deferred, exit
// or at_once.
#include "target.h"
#include <atomic>
#include <cstring>
#include <pthread.h>
#include <sched.h>
#include <stdexcept>
#include <string>

extern "C" long unwinding_throw(long n);
extern "C" void unwinding_exit_thread(long n);
extern "C" void unwinding_wait(std::atomic<int> *waits);
extern "C" void unwinding_compute(std::atomic<int> *waits, int asynchronous);
extern "C" void unwinding_leave_process(long status);

static std::string mode;
static std::atomic<int> waits;

struct Witness {
    long n;
    ~Witness() { printf("caller %ld is over\n", n); }
};

static void throws(long n)
{
    try {
        Witness witness{n};
        printf("returned %ld\n", unwinding_throw(n));
    } catch (const std::exception &error) {
        printf("caught %s\n", error.what());
    } catch (...) {
        printf("caught another\n");
    }
}

static void *leave(void *n)
{
    Witness witness{reinterpret_cast<long>(n)};
    unwinding_exit_thread(witness.n);
    return nullptr;
}

static void *wait_for_end(void *n)
{
    Witness witness{reinterpret_cast<long>(n)};
    if (mode == "cancel")
        unwinding_wait(&waits);
    else
        unwinding_compute(&waits, mode == "compute");
    return nullptr;
}

static void threads(long n)
{
    pthread_t thread;
    void *result;
    waits = 0;
    CHECK(pthread_create(&thread, nullptr, mode == "thread" ? leave : wait_for_end, reinterpret_cast<void *>(n)) == 0);
    if (mode != "thread") {
        while (!waits)
            mode == "cancel" ? (void)usleep(1000) : (void)sched_yield();
        CHECK(pthread_cancel(thread) == 0);
    }
    CHECK(pthread_join(thread, &result) == 0);
    printf("joined %ld %d\n", result == PTHREAD_CANCELED ? -1 : reinterpret_cast<long>(result), waits.load());
}

static void at_exit()
{
    printf("atexit\n");
}

int main(int argc, char **argv)
{
    mode = argc > 1 ? argv[1] : "throw";
    long rounds = argument(argc, argv, 2, 6);
    ready();
    CHECK(atexit(at_exit) == 0);
    for (long n = 0; n < rounds; n++, pace()) {
        printf("round %ld\n", n);
        if (mode == "throw")
            throws(n);
        else if (mode == "exit" || mode == "at_once") {
            fflush(stdout);
            unwinding_leave_process(mode == "exit" ? 9 : 109);
        } else
            threads(n);
    }
    return success();
}
