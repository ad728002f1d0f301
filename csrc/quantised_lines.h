// Memory that is wanted soon, in the order in which it will be read.
#pragma once
#include <algorithm>
#include <vector>

#include "token.h"

namespace lazy {
namespace LAZY_ISA {

// Whoever reads a cache line fetches the next one that nobody fetched yet, always as many lines ahead as were fetched at
// the beginning: memory is never idle, whatever kind of work it waits for.
class Lines {
 public:
  void clear() {
    at_ = end_ = nullptr;
    ranges_.clear();
    next_ = 0;
  }

  void want(const void* start, int64_t bytes) {
    if (!kFetches) return;
    if (next_ == ranges_.size()) {
      ranges_.clear();
      next_ = 0;
    }
    const char* at = static_cast<const char*>(start);
    if (bytes > 0) ranges_.push_back({at, at + bytes});
  }

  LAZY_INLINE void operator()() {
    if (at_ >= end_ && !next()) return;
    __builtin_prefetch(at_, 0, 3);
    at_ += 64;
  }

  // The next so many lines, when they lie one behind the other: whoever asked fetches them. Else null.
  LAZY_INLINE const char* run(int64_t lines) {
    if (end_ - at_ < 64 * lines) return nullptr;
    const char* at = at_;
    at_ += 64 * lines;
    return at;
  }

  // The last `bytes` of what is wanted are still to be read, in this order. What is before them is forgotten, and the first
  // `lead` of them are fetched, if they were not yet.
  void resume(int64_t bytes, int64_t lead) {
    int64_t left = end_ > at_ ? end_ - at_ : 0;
    for (size_t i = next_; i < ranges_.size(); ++i) left += ranges_[i].end - ranges_[i].at;
    for (; left > bytes && (at_ < end_ || next()); left -= 64) at_ += 64;
    fetch(left - std::max<int64_t>(0, bytes - lead));
  }

  void fetch(int64_t bytes) {
    for (int64_t k = 0; k < bytes; k += 64) (*this)();
  }

 private:
  // Other levels wait for arithmetic, not for memory.
  static constexpr bool kFetches = LAZY_VNNI || LAZY_WORDS;

  struct Range { const char *at, *end; };

  bool next() {
    if (next_ == ranges_.size()) return false;
    at_ = ranges_[next_].at;
    end_ = ranges_[next_++].end;
    return true;
  }

  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::vector<Range> ranges_;
  size_t next_ = 0;
};

}  // namespace LAZY_ISA
}  // namespace lazy
