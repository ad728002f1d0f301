// Rows of `down` that are wanted, added one after the other to the sums of the tokens they fired for.
#pragma once
#include <vector>

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

// A piece of a row of `down`, W a number.
template <class W>
struct PlainRow {
  const W* at;

  LAZY_INLINE v16f load(int64_t k) const { return load16(at + k); }
  LAZY_INLINE float one(int64_t k) const { return to_float(at[k]); }
  static constexpr int64_t kLine = 64 / sizeof(W);  // columns of a cache line

  LAZY_INLINE void fetch(int64_t k) const {
    if (k % kLine == 0) __builtin_prefetch(at + k);
  }
};

// One row of `down` that is wanted, with the tokens it is added to.
template <class Row>
struct Wanted {
  Row row;
  const float* value;
  const uint8_t* token;
  int count;
};

// Columns [c0, c0 + width) of a tile's output: what fired, times its rows of `down`.
template <class Row>
class Accumulation {
 public:
  // sums: (tokens, stride), zero or begun. Strides that are a power of two would share cache sets.
  Accumulation(float* sums, int64_t stride, int64_t width, int64_t tokens)
      : sums_(sums), stride_(stride), width_(width), tokens_(tokens) {}

  // Rows are fetched a few ahead.
  void add(const std::vector<Wanted<Row>>& wanted) {
    const size_t n = wanted.size();
    add_all(wanted, [&](size_t e, int64_t k) { wanted[e + kRowsAhead < n ? e + kRowsAhead : e].row.fetch(k); });
  }

  // Rows are here already; for each of their cache lines `more` fetches one of what comes next.
  template <class More>
  void add_fetched(const std::vector<Wanted<Row>>& wanted, More& more) {
    add_all(wanted, [&](size_t, int64_t k) { if (k % Row::kLine == 0) more(); });
  }

 private:
  static constexpr size_t kRowsAhead = 4;

  template <class Ahead>
  LAZY_INLINE void add_all(const std::vector<Wanted<Row>>& wanted, const Ahead& ahead) {
    const size_t n = wanted.size();
    size_t e = 0;
    if (tokens_ == 1)
      for (; e + 4 <= n; e += 4) add_four(&wanted[e], e, ahead);
    for (; e < n; ++e) add_row(wanted[e], e, ahead);
  }

  // y[token] += value * row for the tokens that the neuron fired for; pieces of the row stay in registers.
  template <class Ahead>
  void add_row(const Wanted<Row>& entry, size_t e, const Ahead& ahead) {
    int64_t k = 0;
    for (; k + 128 <= width_; k += 128) add_piece<8>(entry, e, ahead, k);
    if (k + 64 <= width_) { add_piece<4>(entry, e, ahead, k); k += 64; }
    if (k + 32 <= width_) { add_piece<2>(entry, e, ahead, k); k += 32; }
    if (k + 16 <= width_) { add_piece<1>(entry, e, ahead, k); k += 16; }
    for (; k < width_; ++k)
      for (int a = 0; a < entry.count; ++a) sums_[entry.token[a] * stride_ + k] += entry.value[a] * entry.row.one(k);
  }

  template <int U, class Ahead>
  LAZY_INLINE void add_piece(const Wanted<Row>& entry, size_t e, const Ahead& ahead, int64_t k) {
    v16f w[U];
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      w[u] = entry.row.load(k + 16 * u);
      ahead(e, k + 16 * u);
    }
    for (int a = 0; a < entry.count; ++a) {
      float* y = sums_ + entry.token[a] * stride_ + k;
      const v16f v = splat(entry.value[a]);
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
        const v16f sum = load16(y + 16 * u) + v * w[u];
        store(y + 16 * u, sum);
      }
    }
  }

  // One token: four rows together, so that the running sum is read and written once for four rows.
  template <class Ahead>
  void add_four(const Wanted<Row>* entry, size_t e, const Ahead& ahead) {
    constexpr int64_t kLine = Row::kLine;
    const v16f v[4] = {splat(*entry[0].value), splat(*entry[1].value), splat(*entry[2].value), splat(*entry[3].value)};
    const Row row[4] = {entry[0].row, entry[1].row, entry[2].row, entry[3].row};
    int64_t k = 0;
    const auto sixteen = [&](int64_t c) LAZY_LAMBDA {
      v16f sum = load16(sums_ + c);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum += v[j] * row[j].load(c);
      store(sums_ + c, sum);
    };
    for (; k + 16 <= width_; k += kLine) {
      for (size_t j = 0; j < 4; ++j) ahead(e + j, k);
      if (k + kLine > width_) break;
#pragma GCC unroll 4
      for (int64_t part = 0; part < kLine; part += 16) sixteen(k + part);
    }
    for (; k + 16 <= width_; k += 16) sixteen(k);
    for (; k < width_; ++k)
      for (int j = 0; j < 4; ++j) sums_[k] += *entry[j].value * row[j].one(k);
  }

  float* sums_;
  int64_t stride_, width_, tokens_;
};

}  // namespace LAZY_ISA
}  // namespace lazy
