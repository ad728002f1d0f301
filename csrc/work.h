// What kernels share that cut their work into units: scratch memory, and a counter from which workers take units.
#pragma once
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lazy {
namespace LAZY_ISA {

inline int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Scratch of the calling thread, kept between calls and only ever grown.
class Scratch {
 public:
  char* at_least(size_t bytes) {
    if (bytes > size_) {
      memory_.reset(static_cast<char*>(std::aligned_alloc(64, up_to(static_cast<int64_t>(bytes), 64))));
      if (!memory_) throw std::bad_alloc();
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free { void operator()(char* p) const { std::free(p); } };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

// What the calling thread keeps for Owner between calls. Where a loop used it by name, GCC 12 would look up its address
// again at every use.
template <class Owner, class Value>
__attribute__((noinline)) Value& own() {
  thread_local Value value;
  return value;
}

struct Counter {
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int64_t> done{0};

  int64_t take() { return next.fetch_add(1, std::memory_order_relaxed); }
  void finished(int64_t units) { done.fetch_add(units, std::memory_order_release); }

  template <class F>
  void share(int64_t total, const F& unit) {
    for (int64_t i; (i = take()) < total; finished(1)) unit(i);
  }

  // Units still running are held by running threads, so this always ends.
  void wait(int64_t total) const {
    for (int spins = 0; done.load(std::memory_order_acquire) < total; ++spins) {
#if defined(__x86_64__)
      _mm_pause();
#endif
      if (spins > 2000) sched_yield();
    }
  }
};

// Units in contiguous ranges, one for each worker, who then helps with the others': memory is read in few long streams.
class Ranges {
 public:
  struct Seat {
    int64_t range, left;  // ranges still to look at, this one included
  };

  Ranges(int64_t units, int64_t ranges) : units_(units), ranges_(ranges < 1 ? 1 : ranges < kMost ? ranges : kMost) {}

  Seat seat() { return {workers_.fetch_add(1, std::memory_order_relaxed) % ranges_, ranges_}; }

  // The next unit, or -1 when all are taken.
  int64_t take(Seat& seat) {
    for (; seat.left > 0; --seat.left, seat.range = (seat.range + 1) % ranges_) {
      const int64_t begin = begin_of(seat.range), end = begin_of(seat.range + 1);
      const int64_t unit = begin + next_[seat.range].at.fetch_add(1, std::memory_order_relaxed);
      if (unit < end) return unit;
    }
    return -1;
  }

 private:
  static constexpr int64_t kMost = 64;
  struct Next { alignas(64) std::atomic<int64_t> at{0}; };

  int64_t begin_of(int64_t range) const { return units_ * range / ranges_; }

  int64_t units_, ranges_;
  std::atomic<int64_t> workers_{0};
  Next next_[kMost];
};

}  // namespace LAZY_ISA
}  // namespace lazy
