// What a graph does with a block's output before anyone else reads it: adds the block's input and normalises the rows.
#pragma once
#include <vector>

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

// Sums of four chains hide each other's latency.
template <class Term>
LAZY_INLINE float sum_of(int64_t n, const Term& term) {
  v16f sum[4] = {};
  int64_t k = 0;
  for (; k + 64 <= n; k += 64)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sum[c] += term(k + 16 * c);
  for (; k + 16 <= n; k += 16) sum[0] += term(k);
  return reduce((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// In place: (x - mean) / sqrt(variance + epsilon) * weight + bias.
inline void normalise(float* x, int64_t n, const Finish& f) {
  const int64_t whole = n / 16 * 16;
  float total = sum_of(n, [&](int64_t k) { return load16(x + k); });
  for (int64_t k = whole; k < n; ++k) total += x[k];
  const float mean = total / static_cast<float>(n);
  float squares = sum_of(n, [&](int64_t k) { const v16f v = load16(x + k) - mean; return v * v; });
  for (int64_t k = whole; k < n; ++k) squares += (x[k] - mean) * (x[k] - mean);
  const float factor = 1.f / std::sqrt(squares / static_cast<float>(n) + f.epsilon);
  for (int64_t k = 0; k < whole; k += 16) {
    const v16f v = (load16(x + k) - mean) * factor * load16(f.weight + k) + load16(f.bias + k);
    store(x + k, v);
  }
  for (int64_t k = whole; k < n; ++k) x[k] = (x[k] - mean) * factor * f.weight[k] + f.bias[k];
}

// One row of n: y is what the block gave for token t.
template <class T, class Out>
void finish_row_as(const Finish& f, const T* y, int64_t t, int64_t n) {
  const Out* x = static_cast<const Out*>(f.x) + t * n;
  Out* out = static_cast<Out*>(f.out) + t * n;
  if constexpr (std::is_same_v<Out, float>) {
    for (int64_t k = 0; k < n; ++k) out[k] = to_float(y[k]) + x[k];
    if (f.weight) normalise(out, n, f);
  } else {
    thread_local std::vector<float> wide;
    wide.resize(static_cast<size_t>(n));
    for (int64_t k = 0; k < n; ++k) wide[k] = to_float(y[k]) + to_float(x[k]);
    if (f.weight) normalise(wide.data(), n, f);
    for (int64_t k = 0; k < n; ++k) out[k] = narrow(wide[k], Out{});
  }
}

template <class T>
void finish_row(const Finish& f, const T* y, int64_t t, int64_t n) {
  switch (f.dtype) {
    case Dtype::bf16: return finish_row_as<T, bf16>(f, y, t, n);
    case Dtype::f16: return finish_row_as<T, f16>(f, y, t, n);
    default: return finish_row_as<T, float>(f, y, t, n);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
