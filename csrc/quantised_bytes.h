// Products of quantised rows with tokens by LAZY_VNNI.
#pragma once
#include "grid_token.h"
#include "quantised.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_VNNI

// out[r][t] = row r . token t, for R int8 rows and T tokens.
template <int R, int T, class Fetch>
LAZY_INLINE void int8_dots(const uint8_t* const* rows, const float* const* scale, const GridToken* const* x,
                           int64_t padded, float (*out)[T], Fetch fetch) {
  const int8_t* planes[T];
  for (int t = 0; t < T; ++t) planes[t] = x[t]->planes;
  __m512i acc[R][2 * T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < 2 * T; ++t) acc[r][t] = _mm512_setzero_si512();
  for (int64_t k = 0; k < padded; k += 64) {
    __m512i w[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      w[r] = _mm512_loadu_si512(rows[r] + k);
      fetch();
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m512i high = _mm512_loadu_si512(planes[t] + k), low = _mm512_loadu_si512(planes[t] + padded + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        acc[r][2 * t] = add_byte_products(acc[r][2 * t], w[r], high);
        acc[r][2 * t + 1] = add_byte_products(acc[r][2 * t + 1], w[r], low);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) {
      const int32_t high = _mm512_reduce_add_epi32(acc[r][2 * t]) - 128 * x[t]->sum[0];
      const int32_t low = _mm512_reduce_add_epi32(acc[r][2 * t + 1]) - 128 * x[t]->sum[1];
      out[r][t] = (static_cast<float>(high) * 256.f + static_cast<float>(low)) * x[t]->step * *scale[r];
    }
}

// sum + (256 high + low - base) step s, lane by lane: what a block of int4 weights adds.
LAZY_INLINE __m512 add_block(__m512 sum, __m512i high, __m512i low, __m512i base, __m512 step, __m512 s) {
  const __m512i exact = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low), base);
  // the step first: scales of large weights would take what is not yet small out of the range
  return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(exact), step), s, sum);
}

template <int R, int T, class Fetch>
LAZY_INLINE void int4_dots(const uint8_t* const* rows, const bf16* const* scale, const Blocks& blocks,
                           const GridToken* const* x, int64_t padded, float (*out)[T], bool one_piece, Fetch fetch) {
  const __m512i mask = _mm512_set1_epi8(15);
  constexpr int kChains = R == 1 ? 2 : 1;  // a single row has to hide its own latency
  const int8_t* planes[T];
  for (int t = 0; t < T; ++t) planes[t] = x[t]->planes;
  __m512 sum[R][T] = {};
  int64_t at = 0;
  for (int b = 0; b < blocks.count; ++b) {
    __m512i acc[kChains][R][2 * T];
#pragma GCC unroll 16
    for (int i = 0; i < kChains * R * 2 * T; ++i) acc[i / (R * 2 * T)][i / (2 * T) % R][i % (2 * T)] = _mm512_setzero_si512();
    for (const int64_t end = at + 32 * blocks.steps[b]; at < end; at += 64) {
      __m512i x_of[T][4];
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) x_of[t][c] = _mm512_loadu_si512(planes[t] + (c & 1) * padded + 2 * at + (c & 2) * 32);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i pair = _mm512_loadu_si512(rows[r] + at);
        fetch();
        const __m512i even = _mm512_and_si512(pair, mask), odd = _mm512_and_si512(_mm512_srli_epi16(pair, 4), mask);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
          for (int c = 0; c < 2; ++c) {
            acc[0][r][2 * t + c] = add_byte_products(acc[0][r][2 * t + c], even, x_of[t][c]);
            auto& next = acc[kChains - 1][r][2 * t + c];
            next = add_byte_products(next, odd, x_of[t][c + 2]);
          }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512 s = reinterpret_cast<__m512>(load16(scale[r] + 16 * b));
      if (one_piece && b % 2 == 0) fetch();  // scales of two blocks are a line
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        __m512i both[2];
#pragma GCC unroll 2
        for (int c = 0; c < 2; ++c) {
          both[c] = acc[0][r][2 * t + c];
          if constexpr (kChains == 2) both[c] = _mm512_add_epi32(both[c], acc[1][r][2 * t + c]);
        }
        sum[r][t] = add_block(sum[r][t], both[0], both[1], _mm512_loadu_si512(x[t]->base + 16 * b),
                              _mm512_set1_ps(x[t]->step), s);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[r][t] = _mm512_reduce_add_ps(sum[r][t]);
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
