// The first look: int8 sketch of a panel of 64 neurons against a tile of tokens.
#pragma once
#include <type_traits>

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

// What the certificate needs to know of one token.
struct Token {
  float norm;       // >= ||x||, NaN when nothing may be certified
  float error;      // >= ||x - quantised x||
  float step;       // x ~ step * (256 * high + low), or step * high with one plane
  float unscale;    // the sketch product is of x / unscale
  int32_t sum[2];   // sums of the planes, to undo the offset of 128 in the sketch bytes
  bool odd;         // the grid cannot hold x: odd_product takes the place of the panel product
};

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define LAZY_VNNI 1
#else
#define LAZY_VNNI 0
#endif

constexpr float kSmallest = 0x1p-126f;           // what is below may be flushed to zero
constexpr float kLeast = 0x1p-100f, kMost = 0x1p100f;  // largest entries between which no sketch sum leaves fp32
constexpr float kOddFactor = 0x1p-64f;           // what brings the others back

LAZY_INLINE float largest_magnitude(const float* x, int64_t n, bool* finite) {
  v16f top = {};
  v16f poison = {};
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    v16f v = load16(x + k);
    v16f a = v < 0.f ? -v : v;
    top = a > top ? a : top;
    poison += v * 0.f;
  }
  float best = 0.f, bad = 0.f;
  for (int i = 0; i < 16; ++i) { best = top[i] > best ? top[i] : best; bad += poison[i]; }
  for (; k < n; ++k) { float a = std::fabs(x[k]); best = a > best ? a : best; bad += x[k] * 0.f; }
  *finite = bad == 0.f;
  return best;
}

LAZY_INLINE float scaled_square_sum(const float* x, int64_t n, float factor) {
  v16f sum = {};
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) { v16f v = load16(x + k) * factor; sum += v * v; }
  float total = reduce(sum);
  for (; k < n; ++k) { float v = x[k] * factor; total += v * v; }
  return total;
}

// A power of two within a factor of 4 of a magnitude; it and its reciprocal are normal numbers.
LAZY_INLINE float power_near(float magnitude) {
  const uint32_t field = load_as<uint32_t>(&magnitude) >> 23;
  const uint32_t bits = (field < 1 ? 1u : field > 253 ? 253u : field) << 23;
  return load_as<float>(&bits);
}

#if LAZY_VNNI

// The grid of x. planes: padded_in bytes each, high first. Everything is measured on x * factor, whose largest entry is
// between 1 and 2: squares of the misses of a small x would underflow, and hide them.
LAZY_INLINE void quantise(const float* x, int64_t n, int64_t padded, int planes, float factor, float largest,
                          float margin, int8_t* out, Token& t) {
  const float levels = planes == 2 ? 32512.f : 127.f;
  const float step = largest * factor / levels;
  const float inverse = levels / (largest * factor);
  const v16f magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
  v16f miss = {};
  v16i high_sum = {}, low_sum = {};
  float miss_tail = 0.f;
  auto put = [&](int64_t k, v16f x16, int lanes) {
    const v16f v = x16 * factor;
    v16f q = (v * inverse + magic) - magic;
    q = q > levels ? splat(levels) : q < -levels ? splat(-levels) : q;
    v16f f = v - q * step;
    if (lanes == 16) miss += f * f;
    else for (int i = 0; i < lanes; ++i) miss_tail += f[i] * f[i];
    v16i p = __builtin_convertvector(q, v16i);
    v16i high = planes == 2 ? (p + 128) >> 8 : p;
    v16i low = p - high * 256;
    v16b hb = __builtin_convertvector(high, v16b);
    std::memcpy(out + k, &hb, static_cast<size_t>(lanes));
    high_sum += high;
    if (planes == 2) {
      v16b lb = __builtin_convertvector(low, v16b);
      std::memcpy(out + padded + k, &lb, static_cast<size_t>(lanes));
      low_sum += low;
    }
  };
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) put(k, load16(x + k), 16);
  if (k < n) {
    v16f tail = {};
    std::memcpy(&tail, x + k, static_cast<size_t>(n - k) * sizeof(float));
    put(k, tail, static_cast<int>(n - k));
  }
  t.step = step / factor;
  // the recorded misses are themselves rounded: add that rounding, and never go below what it could hide
  t.error = std::sqrt(reduce(miss) + miss_tail) / factor * margin + t.norm * 3e-7f;
  for (int i = 0; i < 16; ++i) { t.sum[0] += high_sum[i]; t.sum[1] += low_sum[i]; }
}

#endif

// Bounds carry a relative margin far above the rounding made here, and what flushing to zero could hide.
inline Token measure(const float* x, int64_t n, int64_t padded, int planes, int8_t* out) {
  Token t = {};
  bool finite = false;
  const float largest = largest_magnitude(x, n, &finite);
  std::memset(out, 0, static_cast<size_t>(padded) * planes);
  t.step = t.unscale = 1.f;
  const float power = power_near(largest), factor = 1.f / power;
  const float margin = 1.f + 4e-7f * static_cast<float>(n + 64);
  const float flushed = 2.f * kSmallest * std::sqrt(static_cast<float>(n));
  t.norm = finite ? power * std::sqrt(scaled_square_sum(x, n, factor)) * margin + flushed : NAN;
  t.odd = !finite || (largest != 0.f && largest < kLeast) || largest > kMost;
  if (t.odd) {
    if (!finite || largest > kMost) t.unscale = 1.f / kOddFactor;
    return t;
  }
  t.error = flushed;
#if LAZY_VNNI
  if (largest != 0.f) quantise(x, n, padded, planes, factor, largest, margin, out, t);
#endif
  return t;
}

// The sketch dot products of one token that the grid cannot hold, in fp32 and scaled so that no sum overflows.
inline void odd_product(const uint8_t* panel, const float* x, int64_t n, float unscale, float* out) {
  const float factor = 1.f / unscale;
  std::memset(out, 0, kPanel * sizeof(float));
  for (int64_t k = 0; k < n; ++k) {
    const uint8_t* bytes = panel + k / 4 * 4 * kPanel + k % 4;
    for (int i = 0; i < kPanel; ++i) out[i] += static_cast<float>(bytes[4 * i] - 128) * (x[k] * factor);
  }
}

#if LAZY_VNNI

constexpr int kStreamAhead = 4096;  // bytes; one core's share of bandwidth times the memory's latency

// acc[r][c] += panel column c . plane row r, over all of padded_in; rows are planes of tokens. The first product with a
// panel fetches it from memory, and the beginning of the next one.
template <int R, bool First>
LAZY_INLINE void panel_product(const uint8_t* panel, const int8_t* const* rows, int64_t padded, int32_t* out,
                               Ahead& ahead, int64_t row_bytes, int lines) {
  __m512i acc[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_setzero_si512();
  for (int64_t k = 0; k < padded; k += 4, panel += 256) {
    __m512i w[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) w[c] = _mm512_loadu_si512(panel + 64 * c);
    if constexpr (First)
      for (int c = 0; c < 4; ++c) __builtin_prefetch(panel + kStreamAhead + 64 * c);
    for (int l = 0; l < lines; ++l) ahead.fetch(row_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_set1_epi32(load_as<int32_t>(rows[r] + k));
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], w[c], x);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_storeu_si512(out + 64 * r + 16 * c, acc[r][c]);
}

// Sketch dot products without the row scale, for `count` tokens: out is (count, 64) floats. Meanwhile the rows in
// `ahead` are fetched, row_bytes each.
inline void sketch_panel(const Problem& p, const uint8_t* panel, const Token* tokens, const int8_t* const* planes,
                         const float* const*, int count, float* out, Ahead& ahead, int64_t row_bytes) {
  alignas(64) int32_t product[2 * kMaxTile][kPanel];
  const int8_t* rows[2 * kMaxTile];
  const int n = count * p.planes;
  for (int t = 0; t < count; ++t)
    for (int j = 0; j < p.planes; ++j) rows[t * p.planes + j] = planes[t] + j * p.padded_in;
  const int64_t steps = (n + 5) / 6 * (p.padded_in / 4);
  const int lines = static_cast<int>((ahead.lines(row_bytes) + steps - 1) / steps);
  int r = 0;
  auto go = [&]<int R>(std::integral_constant<int, R>) {
    if (r == 0) panel_product<R, true>(panel, rows, p.padded_in, product[0], ahead, row_bytes, lines);
    else panel_product<R, false>(panel, rows + r, p.padded_in, product[r], ahead, row_bytes, lines);
  };
  for (; r + 6 <= n; r += 6) go(std::integral_constant<int, 6>{});
  switch (n - r) {
    case 5: go(std::integral_constant<int, 5>{}); break;
    case 4: go(std::integral_constant<int, 4>{}); break;
    case 3: go(std::integral_constant<int, 3>{}); break;
    case 2: go(std::integral_constant<int, 2>{}); break;
    case 1: go(std::integral_constant<int, 1>{}); break;
    default: break;
  }
  for (int t = 0; t < count; ++t)
    for (int c = 0; c < kPanel; c += 16) {
      v16f value;
      if (p.planes == 2) {
        v16i high = load_as<v16i>(product[2 * t] + c) - 128 * tokens[t].sum[0];
        v16i low = load_as<v16i>(product[2 * t + 1] + c) - 128 * tokens[t].sum[1];
        value = __builtin_convertvector(high, v16f) * 256.f + __builtin_convertvector(low, v16f);
      } else {
        value = __builtin_convertvector(load_as<v16i>(product[t] + c) - 128 * tokens[t].sum[0], v16f);
      }
      value *= tokens[t].step;
      std::memcpy(out + t * kPanel + c, &value, 64);
    }
}

#else

template <int R>
LAZY_INLINE void panel_product(const uint8_t* panel, const float* const* x, int64_t n, float* out) {
  v16f acc[R][4] = {};
  for (int64_t k = 0; k < n; k += 4, panel += 256) {
    for (int c = 0; c < 4; ++c) {
      const v16u bytes = load_as<v16u>(panel + 64 * c) ^ 0x80808080u;
      for (int j = 0; j < 4 && k + j < n; ++j) {
        const v16u top = bytes << (24 - 8 * j);
        const v16f w = __builtin_convertvector(load_as<v16i>(&top) >> 24, v16f);
        for (int r = 0; r < R; ++r) acc[r][c] += w * x[r][k + j];
      }
    }
  }
  for (int r = 0; r < R; ++r) std::memcpy(out + r * kPanel, acc[r], sizeof(acc[r]));
}

inline void sketch_panel(const Problem& p, const uint8_t* panel, const Token*, const int8_t* const*,
                         const float* const* x, int count, float* out, Ahead&, int64_t) {
  int t = 0;
  for (; t + 2 <= count; t += 2) panel_product<2>(panel, x + t, p.d_in, out + t * kPanel);
  if (t < count) panel_product<1>(panel, x + t, p.d_in, out + t * kPanel);
}

#endif

// Bit i of the result: neuron i of the panel is *not* proved silent for this token, whose sketch dot products are given.
LAZY_INLINE uint64_t undecided(const Problem& p, int64_t first, const Token& token, const float* products) {
  uint64_t bits = 0;
  for (int c = 0; c < kPanel; c += 16) {
    const int64_t i = first + c;
    const v16f scale = load16(p.certificate.scale + i), bias = load16(p.certificate.bias + i);
    const v16f z = load16(products + c) * scale * token.unscale + bias;
    v16f slack = load16(p.certificate.slack + i) * token.norm + load16(p.certificate.absolute + i);
    slack += load16(p.certificate.quantised + i) * token.error;
    const v16f upper = z + slack, lower = z - slack;
    // comparisons are false for NaN, so what is not finite is never proved; within the limit nothing overflows
    const v16i within = splat(token.norm) <= load16(p.certificate.limit + i);
    const v16i proved = within & ((upper <= p.left) | ((lower >= p.low) & (upper <= p.high)));
#if defined(__AVX512F__)
    const uint64_t mask = static_cast<uint16_t>(~_mm512_movepi32_mask(reinterpret_cast<__m512i>(proved)));
#else
    uint64_t mask = 0;
    for (int l = 0; l < 16; ++l) mask |= static_cast<uint64_t>(proved[l] == 0) << l;
#endif
    bits |= mask << c;
  }
  const int64_t real = p.d_hidden - first;
  return real >= kPanel ? bits : bits & ((uint64_t{1} << real) - 1);
}

}  // namespace LAZY_ISA
}  // namespace lazy
