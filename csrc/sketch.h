// The first look: int8 sketch of a panel of 64 neurons against a tile of tokens.
#pragma once
#include <type_traits>

#include "simd.h"

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

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define LAZY_VNNI 1
#else
#define LAZY_VNNI 0
#endif

#if defined(__AVX2__) && !LAZY_VNNI
#define LAZY_WORDS 1  // pairs of words are multiplied and added up
#else
#define LAZY_WORDS 0
#endif

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

constexpr bool kSketchGrid = LAZY_VNNI;  // whether sketches are multiplied with planes of tokens, else with tokens themselves

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

#if LAZY_VNNI || LAZY_WORDS

// The grid of x. planes: padded_in bytes each, high first. Everything is measured on x * factor, whose largest entry is
// between 1 and 2: squares of the misses of a small x would underflow, and hide them.
LAZY_INLINE void quantise(const float* x, int64_t n, int64_t padded, int planes, bool may_be_loud, float factor,
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

#endif

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
#if LAZY_VNNI || LAZY_WORDS
  if (planes && largest != 0.f) quantise(x, n, padded, planes, may_be_loud, factor, largest, margin, out, t);
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
// panel fetches it from memory, and the beginning of the next one. tokens: of the rows, when each has one plane.
template <int R, bool First>
LAZY_INLINE void panel_product(const uint8_t* const panel, const int8_t* const* rows, int64_t padded, const Token* tokens,
                               int32_t* out, Ahead& ahead, int64_t row_bytes, int lines) {
  __m512i acc[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_setzero_si512();
  const uint8_t* four = panel;
  for (int64_t k = 0; k < padded; k += 4, four += 256) {
    __m512i w[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) w[c] = _mm512_loadu_si512(four + 64 * c);
    if constexpr (First)
      for (int c = 0; c < 4; ++c) __builtin_prefetch(four + kStreamAhead + 64 * c);
    for (int l = 0; l < lines; ++l) ahead.fetch(row_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_set1_epi32(load_as<int32_t>(rows[r] + k));
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) acc[r][c] = add_byte_products(acc[r][c], w[c], x);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    if (tokens && tokens[r].loud) {
      __m512i beyond[4] = {};
      for (int l = 0; l < tokens[r].loud; ++l) {
        const __m512i x = _mm512_set1_epi32(tokens[r].above[l]);
        const uint8_t* at = panel + 256 * static_cast<int64_t>(tokens[r].place[l]);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) beyond[c] = add_byte_products(beyond[c], _mm512_loadu_si512(at + 64 * c), x);
      }
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_add_epi32(acc[r][c], _mm512_slli_epi32(beyond[c], 8));
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_storeu_si512(out + 64 * r + 16 * c, acc[r][c]);
  }
}

// The integer products of a panel and the planes of `count` tokens, (count, p.planes, 64): offsets are not undone. Meanwhile
// the rows in `ahead` are fetched, row_bytes each.
LAZY_INLINE void panel_products(const Problem& p, const uint8_t* panel, const Token* tokens, const int8_t* const* planes,
                                int count, int32_t* out, Ahead& ahead, int64_t row_bytes) {
  const int8_t* rows[2 * kMaxTile];
  const int n = count * p.planes;
  for (int t = 0; t < count; ++t)
    for (int j = 0; j < p.planes; ++j) rows[t * p.planes + j] = planes[t] + j * p.padded_in;
  const int64_t steps = (n + 5) / 6 * (p.padded_in / 4);
  const int lines = static_cast<int>((ahead.lines(row_bytes) + steps - 1) / steps);
  int r = 0;
  auto go = [&]<int R>(std::integral_constant<int, R>) {
    const Token* whose = p.planes == 1 ? tokens + r : nullptr;
    if (r == 0) panel_product<R, true>(panel, rows, p.padded_in, whose, out, ahead, row_bytes, lines);
    else panel_product<R, false>(panel, rows + r, p.padded_in, whose, out + r * kPanel, ahead, row_bytes, lines);
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
}

// Sketch dot products without the row scale, for `count` tokens: out is (count, 64) floats.
inline void sketch_panel(const Problem& p, const uint8_t* panel, const Token* tokens, const int8_t* const* planes,
                         const float* const*, int count, float* out, Ahead& ahead, int64_t row_bytes) {
  alignas(64) int32_t product[2 * kMaxTile][kPanel];
  panel_products(p, panel, tokens, planes, count, product[0], ahead, row_bytes);
  for (int t = 0; t < count; ++t)
    for (int c = 0; c < kPanel; c += 16) {
      v16f value;
      if (p.planes == 2) {
        v16i high = load_as<v16i>(product[2 * t] + c) - 128 * tokens[t].sum[0];
        v16i low = load_as<v16i>(product[2 * t + 1] + c) - 128 * tokens[t].sum[1];
        value = convert<v16f>(high) * 256.f + convert<v16f>(low);
      } else {
        value = convert<v16f>(load_as<v16i>(product[t] + c) - 128 * tokens[t].sum[0]);
      }
      value *= tokens[t].step;
      store(out + t * kPanel + c, value);
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
        const v16f w = convert<v16f>(bits_as<v16i>(top) >> 24);
        for (int r = 0; r < R; ++r) acc[r][c] += w * x[r][k + j];
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 4; ++c) store(out + r * kPanel + 16 * c, acc[r][c]);
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

#if LAZY_VNNI

// What neither a token of a tile nor a neuron of a panel changes.
struct Tile {
  const Token* tokens;
  const int32_t* products;  // (count, 64), of tokens with one plane, offsets not undone
  int count;
};

// As undecided(), for a tile whose integer products are given and a zero set without an inner interval: bit t of
// asking[i]: neuron i of the panel is not proved silent for token t. The sums are those of undecided(), in its order.
inline void undecided_together(const Problem& p, int64_t first, const Tile& tile, uint64_t* asking) {
  alignas(64) uint8_t open[kPanel / 8][kMaxTile] = {};  // eight neurons of one token in a byte
  const __m512 left = _mm512_set1_ps(p.left);
  const Certificate& c = p.certificate;
  for (int begin = 0; begin < kPanel; begin += 16) {
    const int64_t i = first + begin;
    const __m512 scale = _mm512_loadu_ps(c.scale + i), bias = _mm512_loadu_ps(c.bias + i), slack = _mm512_loadu_ps(c.slack + i);
    const __m512 missed = _mm512_loadu_ps(c.quantised + i), absolute = _mm512_loadu_ps(c.absolute + i);
    const __m512 limit = _mm512_loadu_ps(c.limit + i);
    for (int t = 0; t < tile.count; ++t) {
      const Token& token = tile.tokens[t];
      const __m512 norm = _mm512_set1_ps(token.norm);
      const __m512i whole = _mm512_sub_epi32(_mm512_load_si512(tile.products + t * kPanel + begin),
                                             _mm512_set1_epi32(128 * token.sum[0]));
      const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(token.step));
      const __m512 z = _mm512_add_ps(_mm512_mul_ps(value, scale), bias);
      const __m512 apart = _mm512_fmadd_ps(missed, _mm512_set1_ps(token.error), _mm512_fmadd_ps(slack, norm, absolute));
      // comparisons are false for NaN, so what is not finite is never proved; within the limit nothing overflows
      const __mmask16 within = _mm512_cmp_ps_mask(norm, limit, _CMP_LE_OQ);
      const __mmask16 proved = _mm512_mask_cmp_ps_mask(within, _mm512_add_ps(z, apart), left, _CMP_LE_OQ);
      const uint32_t bits = ~static_cast<uint32_t>(proved);
      open[begin / 8][t] = static_cast<uint8_t>(bits);
      open[begin / 8 + 1][t] = static_cast<uint8_t>(bits >> 8);
    }
  }
  const int64_t real = p.d_hidden - first;
  for (int i = 0; i < kPanel; ++i) {
    const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << i % 8));
    asking[i] = i < real ? _mm512_test_epi8_mask(_mm512_load_si512(open[i / 8]), bit) : 0;
  }
}

// The places of the bits of a mask, 64 bytes of room; how many there are.
inline int places(uint64_t mask, uint8_t* out) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int count = 0;
  for (int begin = 0; mask >> begin; begin += 16) {
    const __mmask16 here = static_cast<__mmask16>(mask >> begin);
    const __m512i found = _mm512_maskz_compress_epi32(here, _mm512_add_epi32(lanes, _mm512_set1_epi32(begin)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + count), _mm512_cvtepi32_epi8(found));
    count += __builtin_popcount(here);
    if (begin == 48) break;
  }
  return count;
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
