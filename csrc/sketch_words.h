// The products of a panel of sketches with tokens as words: a chunk of the panel stays in the nearest cache while quarters of
// its neurons pass by, and the next one is fetched meanwhile.
#pragma once
#include "token.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_WORDS

constexpr int kSteps = 32;  // of four numbers in a chunk: 255 * 2^15 * 4 * 32 is less than 2^31

// The sum of the words of a chunk.
LAZY_INLINE int32_t chunk_sum(const int8_t* words, int64_t steps) {
  int32_t sum = 0;
  for (int64_t k = 0; k < 4 * steps; ++k) sum += load_as<int16_t>(words + 2 * k);
  return sum;
}

// out[t][i] += neuron i of sixteen . token t over `steps` steps; `fetch` is called once a step.
template <int T, class Fetch>
LAZY_INLINE void quarter_products(const uint8_t* panel, const int8_t* const* words, const int32_t* offset, int64_t steps,
                                  float* const* out, const Fetch& fetch) {
  __m256i acc[T][4];
#pragma GCC unroll 12
  for (int i = 0; i < 4 * T; ++i) acc[i / 4][i % 4] = _mm256_setzero_si256();
  for (int64_t s = 0; s < steps; ++s, panel += 256) {
    fetch();
    __m256i x[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) x[t] = _mm256_set1_epi64x(load_as<int64_t>(words[t] + 8 * s));
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m256i w = widened(panel + 16 * c);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) acc[t][c] = _mm256_add_epi32(acc[t][c], _mm256_madd_epi16(w, x[t]));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
    for (int c = 0; c < 4; c += 2) {
      const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[t][c], acc[t][c + 1]), 0xd8);
      const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(pairs, _mm256_set1_epi32(offset[t])));
      float* const to = out[t] + 4 * c;
      _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), exact));
    }
}

// out: (T, 64), in steps of the tokens' grids. fetch(line) is called for every cache line behind a chunk, which is as long.
template <int T, class Fetch>
LAZY_INLINE void word_products(const uint8_t* panel, const int8_t* const* words, int64_t padded, float* out, const Fetch& fetch) {
  std::memset(out, 0, T * kPanel * sizeof(float));
  for (int64_t k = 0; k < padded; k += 4 * kSteps) {
    const int64_t steps = (padded - k < 4 * kSteps ? padded - k : 4 * kSteps) / 4;
    const uint8_t* const chunk = panel + 64 * k;
    const uint8_t* ahead = chunk + 256 * steps;
    const int8_t* from[T];
    int32_t offset[T];
    for (int t = 0; t < T; ++t) {
      from[t] = words[t] + 2 * k;
      offset[t] = 128 * chunk_sum(from[t], steps);
    }
    for (int quarter = 0; quarter < 4; ++quarter) {
      float* to[T];
      for (int t = 0; t < T; ++t) to[t] = out + kPanel * t + 16 * quarter;
      quarter_products<T>(chunk + 64 * quarter, from, offset, steps, to, [&] { fetch(ahead), ahead += 64; });
    }
  }
}

// Sketch dot products without the row scale, for `count` tokens: out is (count, 64) floats. Meanwhile the rows in `ahead` are
// fetched, row_bytes each.
inline void sketch_panel(const Problem& p, const uint8_t* panel, const Token* tokens, const int8_t* const* words,
                         const float* const*, int count, float* out, Ahead& ahead, int64_t row_bytes) {
  const int64_t lines = (ahead.lines(row_bytes) + p.padded_in - 1) / p.padded_in;
  const auto go = [&]<int T>(std::integral_constant<int, T>, int t) {
    if (t == 0)
      word_products<T>(panel, words, p.padded_in, out, [&](const uint8_t* next) {
        __builtin_prefetch(next);
        for (int64_t l = 0; l < lines; ++l) ahead.fetch(row_bytes);
      });
    else word_products<T>(panel, words + t, p.padded_in, out + t * kPanel, [](const uint8_t*) {});
  };
  int t = 0;
  for (; t + 2 <= count; t += 2) go(std::integral_constant<int, 2>{}, t);
  if (t < count) go(std::integral_constant<int, 1>{}, t);
  for (t = 0; t < count; ++t)
    for (int c = 0; c < kPanel; c += 16) store(out + t * kPanel + c, load16(out + t * kPanel + c) * tokens[t].step);
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
