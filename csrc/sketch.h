// The first look: int8 sketch of a panel of 64 neurons against a tile of tokens.
#pragma once
#include <type_traits>

#include "sketch_words.h"
#include "token.h"

namespace lazy {
namespace LAZY_ISA {

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

#elif !LAZY_WORDS

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
    bits |= static_cast<uint64_t>(~mask_of(proved) & 0xffff) << c;
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

#elif LAZY_WORDS

// What neither a token of a tile nor a neuron of a panel changes.
struct Tile {
  const Token* tokens;
  const float* products;  // (count, 64)
  int count;
};

// As undecided(), for a tile: bit t of asking[i]: neuron i of the panel is not proved silent for token t.
inline void undecided_together(const Problem& p, int64_t first, const Tile& tile, uint64_t* asking) {
  alignas(64) uint8_t open[kPanel / 8][kMaxTile] = {};  // eight neurons of one token in a byte
  const __m256 left = _mm256_set1_ps(p.left), low = _mm256_set1_ps(p.low), high = _mm256_set1_ps(p.high);
  const Certificate& c = p.certificate;
  for (int eight = 0; eight < kPanel / 8; ++eight) {
    const int64_t i = first + 8 * eight;
    const __m256 scale = _mm256_loadu_ps(c.scale + i), bias = _mm256_loadu_ps(c.bias + i), slack = _mm256_loadu_ps(c.slack + i);
    const __m256 missed = _mm256_loadu_ps(c.quantised + i), absolute = _mm256_loadu_ps(c.absolute + i);
    const __m256 limit = _mm256_loadu_ps(c.limit + i);
    for (int t = 0; t < tile.count; ++t) {
      const Token& token = tile.tokens[t];
      const __m256 norm = _mm256_set1_ps(token.norm);
      const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(tile.products + t * kPanel + 8 * eight), scale);
      const __m256 z = _mm256_fmadd_ps(value, _mm256_set1_ps(token.unscale), bias);
      const __m256 apart = _mm256_fmadd_ps(missed, _mm256_set1_ps(token.error), _mm256_fmadd_ps(slack, norm, absolute));
      const __m256 upper = _mm256_add_ps(z, apart);
      // comparisons are false for NaN, so what is not finite is never proved; within the limit nothing overflows
      __m256 proved = _mm256_cmp_ps(upper, left, _CMP_LE_OQ);
      if (p.low <= p.high) {
        const __m256 inside = _mm256_cmp_ps(_mm256_sub_ps(z, apart), low, _CMP_GE_OQ);
        proved = _mm256_or_ps(proved, _mm256_and_ps(inside, _mm256_cmp_ps(upper, high, _CMP_LE_OQ)));
      }
      proved = _mm256_and_ps(proved, _mm256_cmp_ps(norm, limit, _CMP_LE_OQ));
      open[eight][t] = static_cast<uint8_t>(~_mm256_movemask_ps(proved));
    }
  }
  const int64_t real = p.d_hidden - first;
  for (int eight = 0; eight < kPanel / 8; ++eight) {
    __m256i bits[2];  // the highest one of each byte is that of the neuron
    for (int half = 0; half < 2; ++half) bits[half] = _mm256_load_si256(reinterpret_cast<const __m256i*>(open[eight] + 32 * half));
    for (int i = 8 * eight + 7; i >= 8 * eight; --i) {
      const uint64_t of_32 = static_cast<uint32_t>(_mm256_movemask_epi8(bits[0]));
      const uint64_t rest = static_cast<uint32_t>(_mm256_movemask_epi8(bits[1]));
      asking[i] = i < real ? of_32 | rest << 32 : 0;
      for (__m256i& half : bits) half = _mm256_add_epi8(half, half);
    }
  }
}

// The places of the bits of a mask, 64 bytes of room; how many there are.
inline int places(uint64_t mask, uint8_t* out) {
  int count = 0;
  for (; mask; mask &= mask - 1) out[count++] = static_cast<uint8_t>(__builtin_ctzll(mask));
  return count;
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
