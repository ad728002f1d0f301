// A token as the first look takes it: its norm, and its numbers on a grid.
#pragma once
#include "words.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int kLoud = 8;  // fours of entries that may lie beyond a grid of one plane

// What the certificate needs to know of one token.
struct Token {
  float norm;       // >= ||x||, NaN when nothing may be certified
  float error;      // >= ||x - quantised x||
  float step;       // x ~ step * (256 * high + low), or step * high with one plane
  float unscale;    // the sketch product is of x / unscale
  int32_t sum[2];   // sums of the planes, to undo the offset of 128 in the sketch bytes; with one plane, of all of it
  bool odd;         // the grid cannot hold x: odd_product takes the place of the panel product
  int loud;         // with one plane: how many times four entries there are that its grid does not reach,
  uint16_t place[kLoud];  // where they lie, in fours,
  int32_t above[kLoud];   // and four bytes of 256 steps for each
};

constexpr int64_t kMostFours = 32768 / 4;      // of the widest input that the kernels take
constexpr float kSmallest = 0x1p-126f;           // what is below may be flushed to zero
constexpr float kLeast = 0x1p-100f, kMost = 0x1p100f;  // largest entries between which no sketch sum leaves fp32
constexpr float kOddFactor = 0x1p-64f;           // what brings the others back

LAZY_INLINE float largest_magnitude(const float* x, int64_t n, bool* finite) {
  v16f top = {};
  v16f poison = {};
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    v16f v = load16(x + k);
    v16f a = select(v < 0.f, -v, v);
    top = select(a > top, a, top);
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

// How far the grid of one plane reaches: at most kLoud fours of entries lie beyond. Few features of a transformer are many
// times as large as the others, whose steps they would stretch: on MiniLM, .21 of all products were computed, now .11.
LAZY_INLINE float reach(const float* x, int64_t n, float largest) {
  alignas(64) float most[kMostFours];
  int64_t fours = 0;
  for (int64_t k = 0; k < n; k += 16, fours += 4) {
    const __mmask16 there = static_cast<__mmask16>(n - k >= 16 ? 0xffff : (1 << (n - k)) - 1);
    __m512 v = _mm512_abs_ps(_mm512_maskz_loadu_ps(there, x + k));
    v = _mm512_max_ps(v, _mm512_permute_ps(v, 0b10110001));
    v = _mm512_max_ps(v, _mm512_permute_ps(v, 0b01001110));
    _mm_storeu_ps(most + fours, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, v)));
  }
  for (; fours % 16; ++fours) most[fours] = 0.f;
  float found = largest;
  for (float tried = .8f * largest; tried > largest / 200.f; tried *= .8f) {  // a byte of 256 steps reaches 256 times as far
    int beyond = 0;
    for (int64_t k = 0; k < fours; k += 16)
      beyond += __builtin_popcount(_mm512_cmp_ps_mask(_mm512_load_ps(most + k), _mm512_set1_ps(tried), _CMP_GT_OQ));
    if (beyond > kLoud) break;
    found = tried;
  }
  return found;
}

#endif

// The grid of x. planes: padded_in bytes each, high first. Everything is measured on x * factor, whose largest entry is
// between 1 and 2: squares of the misses of a small x would underflow, and hide them.
LAZY_INLINE void quantise(const float* x, int64_t n, int64_t padded, int planes, [[maybe_unused]] bool may_be_loud, float factor,
                          float largest, float margin, int8_t* out, Token& t) {
#if LAZY_VNNI
  const float top = (planes == 1 && may_be_loud ? reach(x, n, largest) : largest) * factor;
#else
  const float top = largest * factor;
#endif
  const float in_top = planes == 2 ? 32512.f : 127.f, levels = 32512.f;
  const float step = top / in_top;
  const float inverse = in_top / top;
  const v16f magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
  v16f miss = {};
  v16i high_sum = {}, low_sum = {};
  float miss_tail = 0.f;
  auto put = [&](int64_t k, v16f x16, int lanes) {
    const v16f v = x16 * factor;
    v16f q = (v * inverse + magic) - magic;
    q = select(q > levels, splat(levels), select(q < -levels, splat(-levels), q));
    v16f f = v - q * step;
    if (lanes == 16) miss += f * f;
    else for (int i = 0; i < lanes; ++i) miss_tail += f[i] * f[i];
    v16i p = convert<v16i>(q);
    v16i high = (p + 128) >> 8;
    v16i low = p - high * 256;
    v16b hb = bytes_of(high), lb = bytes_of(low);
    if (planes == 2) {
      std::memcpy(out + k, &hb, static_cast<size_t>(lanes));
      std::memcpy(out + padded + k, &lb, static_cast<size_t>(lanes));
      high_sum += high;
      low_sum += low;
      return;
    }
    std::memcpy(out + k, &lb, static_cast<size_t>(lanes));
    high_sum += p;
#if LAZY_VNNI
    for (uint32_t left = _mm512_test_epi32_mask((__m512i)high, (__m512i)high); left;) {
      const int four = __builtin_ctz(left) / 4;
      left &= ~(0xfu << 4 * four);
      t.place[t.loud] = static_cast<uint16_t>(k / 4 + four);
      std::memcpy(&t.above[t.loud++], reinterpret_cast<const char*>(&hb) + 4 * four, 4);
    }
#endif
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

// Bounds carry a relative margin far above the rounding made here, and what flushing to zero could hide. planes: none where
// products are with x itself. may_be_loud: of one plane, whether a few entries may lie beyond its grid.
inline Token measure(const float* x, int64_t n, int64_t padded, int planes, int8_t* out, bool may_be_loud = true) {
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
  if (planes && largest != 0.f) quantise(x, n, padded, planes, may_be_loud, factor, largest, margin, out, t);
  return t;
}

// Planes of a token that the products of this level take.
LAZY_INLINE int planes_of(const Problem& p) { return LAZY_WORDS ? 2 : p.planes; }

// A token as sketch_panel() takes it: planes_of(p) bytes a number.
inline Token measure_for_sketch(const Problem& p, const float* x, int8_t* out) {
#if LAZY_VNNI
  return measure(x, p.d_in, p.padded_in, p.planes, out);
#elif LAZY_WORDS
  thread_local Scratch memory;
  int8_t* const planes = reinterpret_cast<int8_t*>(memory.at_least(static_cast<size_t>(2 * p.padded_in)));
  const Token token = measure(x, p.d_in, p.padded_in, 2, planes);
  join_planes(p.padded_in, planes, out);
  return token;
#else
  return measure(x, p.d_in, p.padded_in, 0, out);
#endif
}

}  // namespace LAZY_ISA
}  // namespace lazy
