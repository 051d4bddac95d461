// Functions that are left by unwinding, and that speak on the way: each destructor prints and flushes.
#include "target.h"
#include <atomic>
#include <pthread.h>
#include <stdexcept>
#include <string>

namespace {
struct Witness {
    const char *what;
    long n;
    ~Witness()
    {
        printf("%s %ld is over\n", what, n);
        fflush(stdout);
    }
};

struct Caught {
    long at;
};

__attribute__((noinline)) long descend(long depth, long n, long catch_at)
{
    Witness witness{"depth", depth};
    if (depth == 0) {
        if (n % 3 == 2)
            return n;
        throw std::runtime_error("thrown " + std::to_string(n));
    }
    try {
        return descend(depth - 1, n, catch_at) + depth;
    } catch (const std::runtime_error &error) {
        printf("depth %ld sees %s\n", depth, error.what());
        fflush(stdout);
        if (depth == catch_at)
            return -depth;
        if (depth == 2)
            throw Caught{depth};
        throw;
    }
}

void tell(void *what)
{
    printf("cleanup %s\n", static_cast<const char *>(what));
    fflush(stdout);
}
}

// n % 3: 0 is caught by the caller, 1 within, 2 returns.
extern "C" long unwinding_throw(long n)
{
    Witness witness{"call", n};
    return descend(3, n, n % 3 == 1 ? 1 : -1);
}

extern "C" void unwinding_exit_thread(long n)
{
    Witness witness{"call", n};
    char what[] = "of the call";
    pthread_cleanup_push(tell, what);
    Witness inner{"inner", n};
    pthread_exit(reinterpret_cast<void *>(n + 7));
    pthread_cleanup_pop(0);
}

// Until it is cancelled.
extern "C" void unwinding_wait(std::atomic<int> *waits)
{
    Witness witness{"wait", 0};
    char what[] = "of the wait";
    pthread_cleanup_push(tell, what);
    *waits = 1;
    for (;;)
        usleep(1000);
    pthread_cleanup_pop(0);
}

// Cancelled while it computes: at once, or at its next point of cancellation.
extern "C" void unwinding_compute(std::atomic<int> *waits, int asynchronous)
{
    char what[] = "of the computing";
    pthread_cleanup_push(tell, what);
    int old;
    pthread_setcanceltype(asynchronous ? PTHREAD_CANCEL_ASYNCHRONOUS : PTHREAD_CANCEL_DEFERRED, &old);
    *waits = 1;
    for (volatile long i = 0;; i++)
        if (!asynchronous && i % 1000 == 0)
            pthread_testcancel();
    pthread_cleanup_pop(0);
}

static void *leave_process(void *how)
{
    long status = reinterpret_cast<long>(how);
    if (status >= 100)
        _exit(static_cast<int>(status));
    exit(static_cast<int>(status));
}

// Another thread of the call ends the process.
extern "C" void unwinding_leave_process(long status)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, nullptr, leave_process, reinterpret_cast<void *>(status)) == 0);
    for (;;)
        usleep(1000);
}
