// Rows of `down` that most tokens of a tile want: a product of matrices, whose sums stay in registers.
#pragma once
#include <algorithm>

#include "wanted.h"

namespace lazy {
namespace LAZY_ISA {

// Whether a row can be multiplied by zero where it was not wanted: no number of it is infinite or NaN.
template <class Row>
constexpr bool kFinite = false;
template <>
constexpr bool kFinite<PlainRow<int8_t>> = true;

// Each sum has the terms of Accumulation in the same order, and zeros for tokens that a row did not fire for.
template <class Row>
class DenseSums {
 public:
  // One load and one store a term against one multiply-add, of which this one does all.
  static bool pays(int64_t pairs, int64_t rows, int64_t tokens) { return tokens >= kTokens && kWorth * pairs >= rows * tokens; }

  // total: (tokens, stride); begun, or to begin.
  void add(const std::vector<Wanted<Row>>& wanted, int64_t tokens, int64_t width, float* total, int64_t stride, bool begin) {
    const int64_t rows = static_cast<int64_t>(wanted.size()), padded = (tokens + kTokens - 1) / kTokens * kTokens;
    spread(wanted, tokens, padded);
    weights_.resize(static_cast<size_t>(rows * kColumns));
    int64_t k = 0;
    for (; k + kColumns <= width; k += kColumns) columns<kVectors>(wanted, k, tokens, padded, total + k, stride, begin);
    for (; k + 16 <= width; k += 16) columns<1>(wanted, k, tokens, padded, total + k, stride, begin);
    for (; k < width; ++k)
      for (int64_t t = 0; t < tokens; ++t) {
        float sum = 0.f;
        for (int64_t e = 0; e < rows; ++e) sum += values_[e * padded + t] * wanted[e].row.one(k);
        float& out = total[t * stride + k];
        out = begin ? sum : out + sum;
      }
  }

 private:
#if defined(__AVX512F__)
  static constexpr int kTokens = 8, kVectors = 2;
#elif defined(__AVX2__)
  static constexpr int kTokens = 6, kVectors = 1;
#else
  static constexpr int kTokens = 2, kVectors = 1;
#endif
  static constexpr int kColumns = 16 * kVectors;
  static constexpr int64_t kWorth = 3;  // terms that take the time of one of Accumulation's

  // The values of every row, a zero for tokens that do not want it.
  void spread(const std::vector<Wanted<Row>>& wanted, int64_t tokens, int64_t padded) {
    values_.assign(wanted.size() * static_cast<size_t>(padded), 0.f);
    float* out = values_.data();
    for (const Wanted<Row>& entry : wanted) {
      if (entry.count == tokens) {
        std::copy(entry.value, entry.value + tokens, out);
      } else {
        for (int a = 0; a < entry.count; ++a) out[entry.token[a]] = entry.value[a];
      }
      out += padded;
    }
  }

  template <int V>
  void columns(const std::vector<Wanted<Row>>& wanted, int64_t k, int64_t tokens, int64_t padded, float* total, int64_t stride,
               bool begin) {
    float* w = weights_.data();
    for (const Wanted<Row>& entry : wanted) {
      entry.row.fetch(k + Row::kLine);
      for (int v = 0; v < V; ++v, w += 16) store(w, entry.row.load(k + 16 * v));
    }
    const int64_t rows = static_cast<int64_t>(wanted.size());
    for (int64_t t0 = 0; t0 < tokens; t0 += kTokens) {
      v16f sum[kTokens][V] = {};
      const float* weight = weights_.data();
      const float* value = values_.data() + t0;
      for (int64_t e = 0; e < rows; ++e, weight += 16 * V, value += padded) {
        v16f row[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) row[v] = load16(weight + 16 * v);
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const v16f x = splat(value[t]);
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) sum[t][v] += x * row[v];
        }
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        if (t0 + t >= tokens) break;
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
          float* out = total + (t0 + t) * stride + 16 * v;
          store(out, begin ? sum[t][v] : load16(out) + sum[t][v]);
        }
      }
    }
  }

  std::vector<float> values_;   // (rows, padded tokens)
  std::vector<float> weights_;  // (rows, columns)
};

}  // namespace LAZY_ISA
}  // namespace lazy
