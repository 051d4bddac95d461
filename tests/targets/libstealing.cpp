// Work of a pool whose workers steal from each other and sleep when there is nothing to steal (oneTBB).
#include "stealing.h"
#include "target.h"
#include <algorithm>
#include <atomic>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_reduce.h>
#include <tbb/parallel_sort.h>
#include <tbb/task_group.h>
#include <vector>

uint64_t steal_sum(long n)
{
    return tbb::parallel_reduce(
        tbb::blocked_range<long>(0, n, 64), uint64_t(0),
        [](const tbb::blocked_range<long> &range, uint64_t sum) {
            for (long i = range.begin(); i < range.end(); i++) {
                uint64_t state = i;
                sum += next_random(&state) >> 20;
            }
            return sum;
        },
        [](uint64_t a, uint64_t b) { return a + b; });
}

uint64_t steal_sort(long n)
{
    std::vector<uint64_t> words(n);
    uint64_t state = n;
    for (auto &word : words)
        word = next_random(&state);
    tbb::parallel_sort(words.begin(), words.end());
    return std::is_sorted(words.begin(), words.end()) ? fnv(FNV_START, words.data(), n * 8) : 0;
}

uint64_t steal_nested(long n)
{
    std::atomic<uint64_t> sum{0};
    tbb::task_group group;
    for (long i = 0; i < n; i++)
        group.run([&sum, i] {
            tbb::parallel_for(0L, 50L, [&sum, i](long j) { sum += i * j; });
        });
    group.wait();
    return sum;
}
