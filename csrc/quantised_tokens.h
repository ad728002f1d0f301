// Tokens on their grid, and the products of a panel of quantised rows with them.
#pragma once
#include <algorithm>

#include "quantised_second.h"
#include "quantised_tile.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int kRows = 4;  // that are multiplied together: one alone waits for its own sums; 64 is a multiple
constexpr int64_t kStreamLead = 12288;  // bytes

// Tokens on their grid, made by whoever is free.
template <class T>
class GridTokens {
 public:
  GridTokens(const QuantisedProblem& p, char*& scratch) : p_(p), base_size_(int64_t{16} * p.blocks.count) {
    const int64_t n = p.tokens;
    tokens_ = take<GridToken>(scratch, n);
    planes_ = take<int8_t>(scratch, n * 2 * p.padded_in);
    ordered_ = p.bits == 4 || LAZY_WORDS ? take<int8_t>(scratch, n * 2 * p.padded_in) : planes_;
    base_ = take<int32_t>(scratch, n * base_size_);
    wide_ = std::is_same_v<T, float> ? nullptr : take<float>(scratch, n * p.d_in);
  }

  static size_t scratch_bytes(const QuantisedProblem& p) {
    const int64_t n = p.tokens;
    return up_to(n * sizeof(GridToken), 64) + 2 * up_to(n * 2 * p.padded_in, 64) +
           up_to(n * int64_t{16} * p.blocks.count * sizeof(int32_t), 64) + up_to(n * p.d_in * sizeof(float), 64);
  }

  void prepare(int64_t t) const {
    const T* x = static_cast<const T*>(p_.x) + t * p_.d_in;
    const float* wide;
    if constexpr (std::is_same_v<T, float>) {
      wide = x;
    } else {
      float* out = wide_ + t * p_.d_in;
      for (int64_t k = 0; k < p_.d_in; ++k) out[k] = to_float(x[k]);
      wide = out;
    }
    int8_t* planes = planes_ + t * 2 * p_.padded_in;
    const Token m = measure(wide, p_.d_in, p_.padded_in, 2, planes);
    int8_t* ordered = ordered_ + t * 2 * p_.padded_in;
    int32_t* base = base_ + t * base_size_;
#if LAZY_VNNI || LAZY_WORDS
    if (p_.bits == 4) reorder(p_.blocks, p_.padded_in, planes, ordered, base);
#endif
#if LAZY_WORDS
    if (p_.bits == 8) join_planes(p_.padded_in, planes, ordered);
#endif
    tokens_[t] = {ordered, base, wide, m.step, {m.sum[0], m.sum[1]}, m.odd};
  }

  // Before the work is shared, where that is quicker than sharing it.
  void prepare_inline() {
    for (int64_t t = 0; t < p_.tokens; ++t) prepare(t);
    prepared_ = true;
  }

  // Every worker calls this; all tokens are ready when it returns.
  void prepare_together() {
    if (prepared_) return;
    together_.share(p_.tokens, [&](int64_t t) { prepare(t); });
    together_.wait(p_.tokens);
  }

  const GridToken& operator[](int64_t t) const { return tokens_[t]; }

  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

 private:
  const QuantisedProblem& p_;
  int64_t base_size_;
  GridToken* tokens_;
  int8_t *planes_, *ordered_;
  int32_t* base_;
  float* wide_;
  bool prepared_ = false;
  Counter together_;
};

LAZY_INLINE bool streams(int64_t tokens) { return tokens <= kStreamTokens; }

// What stands beside a row: its scales and its bias.
inline void fetch_beside(const QuantisedProblem& p, const QuantisedRows& rows, int64_t row) {
  fetch_scales(p, rows, row, 1);
  if (rows.bias) __builtin_prefetch(static_cast<const char*>(rows.bias) + row * (p.dtype == Dtype::f32 ? 4 : 2));
}

// All rows of a panel are wanted.
inline void want_panel(const QuantisedProblem& p, const QuantisedRows& rows, int64_t panel, Lines& lines) {
  const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p.d_hidden - first);
  lines.want(rows.bytes + first * rows.stride, n * rows.stride);
}

// The products of one panel of rows with the tokens of a tile: out[row * kGridTile + token].
inline void panel_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                       const GridToken* const* x, int count, float* decoded, float* out, Lines& lines) {
#if LAZY_VNNI || LAZY_WORDS
  bool odd = false;
  for (int t = 0; t < count; ++t) odd |= x[t]->odd;
  if (count > kStreamTokens && !odd) return tile_dots(p, rows, first, n, x, count, out, lines);
#endif
  int64_t r = 0;
  for (; r < n; r += r + kRows <= n ? kRows : 1) {
    const int64_t row[kRows] = {first + r, first + r + 1, first + r + 2, first + r + 3};
    if (p.bits == 4) fetch_scales(p, rows, row[0] + kStreamLead / rows.stride, kRows);
    if (r + kRows <= n) rows_dots<kRows>(p, rows, row, x, count, decoded, out + r * kGridTile, lines);
    else rows_dots<1>(p, rows, row, x, count, decoded, out + r * kGridTile, lines);
  }
}

template <class T>
float bias_of(const QuantisedRows& rows, int64_t row) {
  return rows.bias ? to_float(static_cast<const T*>(rows.bias)[row]) : 0.f;
}

}  // namespace LAZY_ISA
}  // namespace lazy
