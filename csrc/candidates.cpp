// The rows of a matrix that may give the k largest products with a token: those whose upper bound, from the int8 sketch,
// is not below the k-th largest lower bound. Compiled once for each ISA level.
#include "candidates.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <limits>
#include <vector>

#include "sketch.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

constexpr int kTokens = 16;             // whose bounds are held at once
constexpr int64_t kStretch = 4;         // panels in one unit of work
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMerging = 0x1p-100f;   // what is closer may become equal where small numbers are flushed or scaled

// The k largest of the numbers that are offered.
class Largest {
 public:
  void clear(int64_t k) {
    k_ = static_cast<size_t>(k);
    kept_.clear();
    kept_.reserve(2 * k_ + 64);
    least_ = -kInfinity;
  }

  LAZY_INLINE void offer(v16f values) {
    uint32_t more = mask_of(values > least_);
    if (!more) return;
    float all[16];
    store(all, values);
    for (; more; more &= more - 1) kept_.push_back(all[__builtin_ctz(more)]);
    if (kept_.size() >= 2 * k_ + 16) shrink();
  }

  void take_from(const Largest& other) {
    kept_.insert(kept_.end(), other.kept_.begin(), other.kept_.end());
    shrink();
  }

  // The k-th largest; minus infinity when there are fewer.
  float last() {
    shrink();
    return least_;
  }

 private:
  void shrink() {
    if (kept_.size() < k_) return;
    const auto at = kept_.begin() + static_cast<std::ptrdiff_t>(k_) - 1;
    std::nth_element(kept_.begin(), at, kept_.end(), std::greater<float>());
    least_ = *at;
    kept_.resize(k_);
  }

  std::vector<float> kept_;
  size_t k_ = 1;
  float least_ = -kInfinity;
};

LAZY_INLINE float before(float x, float) { return std::nextafter(x, -kInfinity); }

template <class T>
LAZY_INLINE float before(float x, T) {
  T t = narrow(x, T{});
  t.bits = static_cast<uint16_t>((t.bits & 0x7fffu) == 0 ? 0x8001u : t.bits & 0x8000u ? t.bits + 1 : t.bits - 1);
  return to_float(t);
}

// A product below this is, as a number of T, certainly less than `lower`, and still is after both are divided by a
// temperature between 2^-10 and 2^10.
template <class T>
float edge_of(float lower) {
  constexpr float kMostHere = std::is_same_v<T, f16> ? 32768.f : 0x1p100f;
  if (!(std::fabs(lower) < kMostHere)) return -kInfinity;
  if (std::is_same_v<T, float>) return lower - std::fabs(lower) * 0x1p-21f - kMerging;
  const float value = rounded<T>(lower);
  return 0.5f * (value + before(value, T{})) - kMerging;
}

template <class T>
class Candidates {
 public:
  Candidates(const CandidateProblem& p, int threads, char* scratch)
      : p_(p.rows), k_(p.k), wanted_(p.wanted), threads_(threads), panels_((p_.d_hidden + kPanel - 1) / kPanel) {
    tokens_ = take<Token>(scratch, kTokens);
    planes_ = take<int8_t>(scratch, kTokens * planes_of(p_) * p_.padded_in);
    if (!std::is_same_v<T, float>) wide_ = take<float>(scratch, kTokens * p_.d_in);
    upper_ = take<float>(scratch, kTokens * panels_ * kPanel);
    largest_.resize(static_cast<size_t>(threads));
  }

  static size_t scratch_bytes(const Problem& p) {
    return up_to(kTokens * sizeof(Token), 64) + up_to(kTokens * planes_of(p) * p.padded_in, 64) +
           up_to(kTokens * p.d_in * sizeof(float), 64) +
           up_to(kTokens * up_to(p.d_hidden, kPanel) * sizeof(float), 64) + 256;
  }

  void run(Parallel parallel) {
    for (first_ = 0; first_ < p_.tokens; first_ += kTokens) {
      count_ = static_cast<int>(std::min<int64_t>(kTokens, p_.tokens - first_));
      for (int t = 0; t < count_; ++t) prepare(t);
      for (auto& mine : largest_)
        for (int t = 0; t < count_; ++t) mine[t].clear(k_);
      next_.store(0);
      workers_.store(0);
      if (threads_ == 1) bound_panels();
      else parallel(threads_, [](void* context) { static_cast<Candidates*>(context)->bound_panels(); }, this);
      for (int t = 0; t < count_; ++t) mark(t);
    }
  }

 private:
  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

  const float* wide_row(int t) const {
    if constexpr (std::is_same_v<T, float>) return static_cast<const float*>(p_.x) + (first_ + t) * p_.d_in;
    else return wide_ + t * p_.d_in;
  }

  void prepare(int t) {
    if constexpr (!std::is_same_v<T, float>) {
      const T* x = static_cast<const T*>(p_.x) + (first_ + t) * p_.d_in;
      for (int64_t k = 0; k < p_.d_in; ++k) wide_[t * p_.d_in + k] = to_float(x[k]);
    }
    tokens_[t] = measure_for_sketch(p_, wide_row(t), planes_ + t * planes_of(p_) * p_.padded_in);
    if (!rounds_to_nearest()) tokens_[t].norm = NAN;
  }

  // Any number of threads call this; together they bound every product.
  void bound_panels() {
    const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
    if (slot >= threads_) return;
    Largest* mine = largest_[static_cast<size_t>(slot)].data();
    const int8_t* planes[kTokens];
    const float* wide[kTokens];
    for (int t = 0; t < count_; ++t) {
      planes[t] = planes_ + t * planes_of(p_) * p_.padded_in;
      wide[t] = wide_row(t);
    }
    Ahead nothing;
    nothing.clear();
    alignas(64) float product[kTokens * kPanel];
    for (int64_t unit; (unit = next_.fetch_add(kStretch, std::memory_order_relaxed)) < panels_;)
      for (int64_t panel = unit; panel < std::min(unit + kStretch, panels_); ++panel) {
        const uint8_t* bytes = p_.sketch + panel * kPanel * p_.padded_in;
        sketch_panel(p_, bytes, tokens_, planes, wide, count_, product, nothing, 0);
        for (int t = 0; t < count_; ++t) {
          if (tokens_[t].odd) odd_product(bytes, wide[t], p_.d_in, tokens_[t].unscale, product + t * kPanel);
          bound(panel * kPanel, tokens_[t], product + t * kPanel, upper_ + (t * panels_ + panel) * kPanel, mine[t]);
        }
      }
  }

  // The intervals of one panel for one token: upper ends are kept, lower ends offered.
  LAZY_INLINE void bound(int64_t first, const Token& token, const float* product, float* upper, Largest& lower) const {
    const Certificate& c = p_.certificate;
    for (int at = 0; at < kPanel; at += 16) {
      const int64_t i = first + at;
      const v16f z = load16(product + at) * load16(c.scale + i) * token.unscale + load16(c.bias + i);
      v16f slack = load16(c.slack + i) * token.norm + load16(c.absolute + i);
      slack += load16(c.quantised + i) * token.error;
      // false for NaN, so that of what is not finite nothing is proved; within the limit nothing overflows
      const v16i within = splat(token.norm) <= load16(c.limit + i);
      const v16f top = select(within, z + slack, splat(kInfinity)), bottom = select(within, z - slack, splat(-kInfinity));
      store(upper + at, top);
      lower.offer(bottom);
    }
  }

  void mark(int t) {
    for (size_t slot = 1; slot < largest_.size(); ++slot) largest_[0][t].take_from(largest_[slot][t]);
    const float edge = edge_of<T>(largest_[0][t].last());
    const float* upper = upper_ + t * panels_ * kPanel;
    for (int64_t i = 0; i < p_.d_hidden; ++i) wanted_[i] |= static_cast<uint8_t>(!(upper[i] < edge));
  }

  const Problem& p_;
  const int64_t k_;
  uint8_t* wanted_;
  int threads_;
  int64_t panels_, first_ = 0;
  int count_ = 0;
  Token* tokens_;
  int8_t* planes_;
  float *wide_ = nullptr, *upper_;
  std::vector<std::array<Largest, kTokens>> largest_;
  std::atomic<int64_t> next_{0}, workers_{0};
};

template <class T>
void run(const CandidateProblem& p, int threads, Parallel parallel) {
  thread_local Scratch memory;
  Candidates<T>(p, threads, memory.at_least(Candidates<T>::scratch_bytes(p.rows))).run(parallel);
}

}  // namespace

void candidates(const CandidateProblem& p, int threads, Parallel parallel) {
  switch (p.rows.dtype) {
    case Dtype::bf16: return run<bf16>(p, threads, parallel);
    case Dtype::f16: return run<f16>(p, threads, parallel);
    default: return run<float>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
