// The products of a panel of sketches with tokens as words: for many tokens a quarter of the panel is widened once and stays in
// the nearest cache while they pass by; the next panel is fetched meanwhile.
#pragma once
#include "token.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_WORDS

constexpr int kSteps = 128;      // of four numbers in a chunk: 128 * 32512 * 4 * 128 is less than 2^31
constexpr int kQuarter = 16;     // neurons
constexpr int kWidensFrom = 12;  // tokens

// Four numbers each of four neurons, c of a quarter, from the panel's bytes.
struct QuarterBytes {
  const uint8_t* at;

  LAZY_INLINE __m256i load(int64_t step, int c) const {
    return _mm256_sub_epi16(widened(at + 4 * kPanel * step + kQuarter * c), _mm256_set1_epi16(128));
  }
};

// The same numbers as words, widened before.
struct QuarterWords {
  const int16_t* at;

  QuarterWords(QuarterBytes bytes, int64_t steps, int16_t* room) : at(room) {
    for (int64_t s = 0; s < steps; ++s)
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c)
        _mm256_store_si256(reinterpret_cast<__m256i*>(room + 4 * kQuarter * s + kQuarter * c), bytes.load(s, c));
  }

  LAZY_INLINE __m256i load(int64_t step, int c) const {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(at + 4 * kQuarter * step + kQuarter * c));
  }
};

// A part of the sums along a row of the panel.
struct Chunk {
  int64_t begin, steps;
  bool first, last;
};

// Products of 4 C neurons of a quarter, from vector c0 on, with T tokens: out is (T, 64), of the first of these neurons.
template <int T, int C, class Weights, class Fetch>
LAZY_INLINE void word_products(const Weights& weights, int c0, const int8_t* const* words, const Token* tokens, const Chunk& chunk,
                               float* out, const Fetch& fetch) {
  __m256i sum[T][C];
#pragma GCC unroll 12
  for (int i = 0; i < T * C; ++i) sum[i / C][i % C] = _mm256_setzero_si256();
  const int8_t* from[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) from[t] = words[t] + 2 * chunk.begin;
  for (int64_t s = 0; s < chunk.steps; ++s) {
    fetch();
#pragma GCC unroll 2
    for (int c = 0; c < C; c += 2) {
      const __m256i w0 = weights.load(s, c0 + c), w1 = weights.load(s, c0 + c + 1);
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) add_word_products(sum[t][c], sum[t][c + 1], w0, w1, from[t] + 8 * s);
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
    for (int c = 0; c < C; c += 2) {
      const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[t][c], sum[t][c + 1]), 0xd8);
      float* const to = out + kPanel * t + 4 * (c0 + c);
      __m256 value = _mm256_cvtepi32_ps(pairs);
      if (!chunk.first) value = _mm256_add_ps(_mm256_loadu_ps(to), value);
      if (chunk.last) value = _mm256_mul_ps(value, _mm256_set1_ps(tokens[t].step));
      _mm256_storeu_ps(to, value);
    }
}

// A panel's products with some tokens.
class PanelOfWords {
 public:
  PanelOfWords(const uint8_t* panel, int64_t padded, const Token* tokens, const int8_t* const* words, int count, float* out)
      : panel_(panel), padded_(padded), tokens_(tokens), words_(words), count_(count), out_(out) {}

  // Meanwhile the next panel and the rows in `ahead` are fetched, row_bytes each.
  void multiply(Ahead& ahead, int64_t row_bytes) const {
    alignas(64) int16_t room[4 * kQuarter * kSteps];
    for (Chunk chunk = {0, 0, true, false}; chunk.begin < padded_; chunk.begin += 4 * chunk.steps, chunk.first = false) {
      chunk.steps = std::min<int64_t>(padded_ - chunk.begin, 4 * kSteps) / 4;
      chunk.last = chunk.begin + 4 * chunk.steps == padded_;
      for (int quarter = 0; quarter < kPanel / kQuarter; ++quarter) {
        const QuarterBytes bytes = {panel_ + kPanel * chunk.begin + 4 * kQuarter * quarter};
        const uint8_t* next = panel_ + kPanel * (padded_ + chunk.begin + quarter * chunk.steps);
        if (count_ < kWidensFrom) each(bytes, chunk, quarter, next, ahead, row_bytes);
        else each(QuarterWords(bytes, chunk.steps, room), chunk, quarter, next, ahead, row_bytes);
      }
    }
  }

 private:
  template <class Weights>
  LAZY_INLINE void each(const Weights& weights, const Chunk& chunk, int quarter, const uint8_t* next, Ahead& ahead,
                        int64_t row_bytes) const {
    const int64_t rows = ahead.lines(row_bytes);
    int t = 0;
    const auto some = [&]<int T>(std::integral_constant<int, T>) {
      constexpr int C = T > 2 ? 2 : 4;
      const int64_t lines = (rows * C + 4 * padded_ - 1) / (4 * padded_);  // a step
      float* const out = out_ + kPanel * t + kQuarter * quarter;
      for (int c = 0; c < 4; c += C) {
        if (t > 0) word_products<T, C>(weights, c, words_ + t, tokens_ + t, chunk, out, [] {});
        else word_products<T, C>(weights, c, words_, tokens_, chunk, out, [&] {
          __builtin_prefetch(next);
          next += 16 * C;
          for (int64_t l = 0; l < lines; ++l) ahead.fetch(row_bytes);
        });
      }
      t += T;
    };
    while (t + 6 <= count_) some(std::integral_constant<int, 6>{});
    switch (count_ - t) {
      case 5: return some(std::integral_constant<int, 5>{});
      case 4: return some(std::integral_constant<int, 4>{});
      case 3: return some(std::integral_constant<int, 3>{});
      case 2: return some(std::integral_constant<int, 2>{});
      case 1: return some(std::integral_constant<int, 1>{});
      default: return;
    }
  }

  const uint8_t* panel_;
  int64_t padded_;
  const Token* tokens_;
  const int8_t* const* words_;
  int count_;
  float* out_;
};

// Sketch dot products without the row scale, for `count` tokens: out is (count, 64) floats. Meanwhile the rows in `ahead` are
// fetched, row_bytes each.
inline void sketch_panel(const Problem& p, const uint8_t* panel, const Token* tokens, const int8_t* const* words,
                         const float* const*, int count, float* out, Ahead& ahead, int64_t row_bytes) {
  PanelOfWords(panel, p.padded_in, tokens, words, count, out).multiply(ahead, row_bytes);
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
