// std::thread, std::async, futures, exceptions that cross threads, thread-local objects with destructors.
#include "cppthreads.h"
#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

static std::atomic<long> destroyed{0};

struct Counted {
    long value = 5;
    ~Counted() { destroyed += value; }
};

static thread_local Counted counted;

long cpp_threads(int n)
{
    std::vector<std::thread> threads;
    std::vector<long> results(n);
    for (int i = 0; i < n; i++)
        threads.emplace_back([&results, i] {
            counted.value += i;
            results[i] = counted.value * 3;
        });
    for (auto &thread : threads)
        thread.join();
    return std::accumulate(results.begin(), results.end(), 0L) * 1000 + destroyed.exchange(0);
}

long cpp_async(int n)
{
    std::vector<std::future<long>> futures;
    for (int i = 0; i < n; i++)
        futures.push_back(std::async(std::launch::async, [i]() -> long {
            if (i % 3 == 2)
                throw std::runtime_error("third");
            return i * i;
        }));
    long sum = 0;
    for (auto &future : futures) {
        try {
            sum += future.get();
        } catch (const std::runtime_error &error) {
            sum += 1000 + error.what()[0];
        }
    }
    return sum;
}

long cpp_handshake(int rounds)
{
    std::mutex mutex;
    std::condition_variable changed;
    int turn = 0;
    long sum = 0;
    std::thread other([&] {
        for (int i = 0; i < rounds; i++) {
            std::unique_lock lock(mutex);
            changed.wait(lock, [&] { return turn == 1; });
            sum = sum * 3 + i;
            turn = 0;
            changed.notify_one();
        }
    });
    for (int i = 0; i < rounds; i++) {
        std::unique_lock lock(mutex);
        sum += 7;
        turn = 1;
        changed.notify_one();
        changed.wait(lock, [&] { return turn == 0; });
    }
    other.join();
    return sum % 1000003;
}
