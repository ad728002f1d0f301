// Products of quantised rows with tokens where no instruction adds up products of bytes: int8 rows as pairs of words, int4
// rows as pairs of nibbles with the bytes of the planes. The sums are the whole numbers that LAZY_VNNI gives.
#pragma once
#include "grid_token.h"
#include "quantised.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_WORDS

// Keeps a sum in its register: GCC 12 would make a tree of the sums of a loop, and keep its leaves in memory.
LAZY_INLINE void settle(__m256i& sum) { asm("" : "+x"(sum)); }

// The sum of eight lanes, which may leave 32 bits.
LAZY_INLINE int64_t wide_sum(__m256i v) {
  const __m256i four = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                                        _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1)));
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return _mm_extract_epi64(two, 0) + _mm_extract_epi64(two, 1);
}

constexpr int64_t kWordPiece = 2048;  // numbers whose products 32 bits a lane hold: 255 * 2^15 * 2 in each of 128 steps

// Adds to total[r][t] what numbers [begin, end) of R rows and T tokens give, no more than a piece.
template <int R, int T, class Total, class Fetch>
LAZY_INLINE void word_sums(const uint8_t* const* rows, const int8_t* const* words, int64_t begin, int64_t end, Total total,
                           Fetch& fetch) {
  constexpr int kChains = R * T == 1 ? 2 : 1;  // a single sum has to hide its own latency
  __m256i acc[kChains][R][T];
  unrolled<kChains * R * T>([&](auto i) LAZY_LAMBDA { acc[i / (R * T)][i / T % R][i % T] = _mm256_setzero_si256(); });
  for (int64_t k = begin; k < end; k += 64) {
    unrolled<R>([&](auto) LAZY_LAMBDA { fetch(); });
    unrolled<4>([&](auto c) LAZY_LAMBDA {
      __m256i x[T];
      unrolled<T>([&](auto t) LAZY_LAMBDA { x[t] = load_words(words[t] + 2 * (k + 16 * c)); });
      unrolled<R>([&](auto r) LAZY_LAMBDA {
        const uint8_t* row = rows[r] + k + 16 * c;
        auto& sum = acc[c % kChains][r];
        unrolled<T / 2>([&](auto t) LAZY_LAMBDA { add_row_products(sum[2 * t], sum[2 * t + 1], x[2 * t], x[2 * t + 1], row); });
        if constexpr (T % 2 == 1) add_row_products(sum[T - 1], x[T - 1], row);
      });
    });
  }
  unrolled<kChains * R * T>([&](auto i) LAZY_LAMBDA {
    total[i / T % R][i % T] += wide_sum(acc[i / (R * T)][i / T % R][i % T]);
  });
}

// What the sum of a row's bytes, offset by 128, and a token's words says.
LAZY_INLINE float int8_dot(int64_t total, const GridToken& x, float scale) {
  return static_cast<float>(total - 128 * (int64_t{256} * x.sum[0] + x.sum[1])) * x.step * scale;
}

// out[r][t] = row r . token t, for R int8 rows and T tokens.
template <int R, int T, class Fetch>
LAZY_INLINE void int8_dots(const uint8_t* const* rows, const float* const* scale, const GridToken* const* x,
                           int64_t padded, float (*out)[T], Fetch fetch) {
  const int8_t* words[T];
  for (int t = 0; t < T; ++t) words[t] = x[t]->planes;
  int64_t total[R][T] = {};
  for (int64_t k = 0; k < padded; k += kWordPiece)
    word_sums<R, T>(rows, words, k, k + kWordPiece < padded ? k + kWordPiece : padded, total, fetch);
  for (int t = 0; t < T; ++t)
    for (int r = 0; r < R; ++r) out[r][t] = int8_dot(total[r][t], *x[t], *scale[r]);
}

// sum + (256 high + low - base) step s, for half the lanes of a block.
LAZY_INLINE __m256 add_half_block(__m256 sum, __m256i total, const GridToken& x, int block, int half, __m256 s) {
  const __m256i base = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.base + 16 * block + 8 * half));
  const __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(total, base));
  // the step first: scales of large weights would take what is not yet small out of the range
  return _mm256_fmadd_ps(_mm256_mul_ps(exact, _mm256_set1_ps(x.step)), s, sum);
}

LAZY_INLINE __m256 half_scales(const bf16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// In the order of `reduce`.
LAZY_INLINE float sum_of_halves(const __m256* halves) {
  const __m256 eight = _mm256_add_ps(halves[0], halves[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// 256 high + low of sums of words.
LAZY_INLINE __m256i joined(__m256i high, __m256i low) {
  return _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(256)), _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
}

constexpr int kWordSteps = 8;  // of four weights, whose sums 16 bits hold: 8 * 2 * 15 * 2^7 < 2^15

// add(whether it is the first time), `times` times but no more than Most, which are not a loop.
template <int Most, class Add>
LAZY_INLINE void repeat(int times, const Add& add) {
  add(true);
  if (times >= Most) {
#pragma GCC unroll 8
    for (int i = 1; i < Most; ++i) add(false);
  } else {
    for (int i = 1; i < times; ++i) add(false);
  }
}

// 256 high + low of a block of a row of int4 weights with T tokens, half the lanes each: `lines` of 64 bytes from byte `at` on.
template <int T, class Fetch>
LAZY_INLINE void nibble_sums(const uint8_t* row, const int8_t* const* planes, int64_t padded, int64_t at, int lines,
                             __m256i (*total)[2], Fetch& fetch) {
  constexpr int kLines = kWordSteps / 2;
  const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int i = 0; i < 2 * T; ++i) total[i / 2][i % 2] = _mm256_setzero_si256();
  for (; lines > 0; lines -= kLines) {
    __m256i acc[T][2][2];
    const auto add = [&](bool begin) LAZY_LAMBDA {
      fetch();
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + at + 32 * half));
        settle(pair);
        const __m256i even = _mm256_and_si256(pair, mask), odd = _mm256_and_si256(_mm256_srli_epi16(pair, 4), mask);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
          for (int c = 0; c < 4; ++c) {
            const __m256i x = load_words(planes[t] + (c & 1) * padded + 2 * at + (c & 2) * 32 + 32 * half);
            const __m256i products = _mm256_maddubs_epi16(c & 2 ? odd : even, x);
            __m256i& sum = acc[t][half][c & 1];
            sum = begin && c < 2 ? products : _mm256_add_epi16(sum, products);
            settle(sum);
          }
      }
      at += 64;
    };
    repeat<kLines>(lines, add);
#pragma GCC unroll 8
    for (int i = 0; i < 2 * T; ++i)
      total[i / 2][i % 2] = _mm256_add_epi32(total[i / 2][i % 2], joined(acc[i / 2][i % 2][0], acc[i / 2][i % 2][1]));
  }
}

template <int R, int T, class Fetch>
LAZY_INLINE void int4_dots(const uint8_t* const* rows, const bf16* const* scale, const Blocks& blocks,
                           const GridToken* const* x, int64_t padded, float (*out)[T], bool one_piece, Fetch fetch) {
  const int8_t* planes[T];
  for (int t = 0; t < T; ++t) planes[t] = x[t]->planes;
  __m256 sum[R][T][2] = {};
  int64_t at = 0;
  for (int b = 0; b < blocks.count; at += 32 * blocks.steps[b++])
#pragma GCC unroll 1
    for (int r = 0; r < R; ++r) {
      if (one_piece && b % 2 == 0) fetch();  // scales of two blocks are a line
      __m256i total[T][2];
      nibble_sums<T>(rows[r], planes, padded, at, blocks.steps[b] / 2, total, fetch);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256 s = half_scales(scale[r] + 16 * b + 8 * half);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) sum[r][t][half] = add_half_block(sum[r][t][half], total[t][half], *x[t], b, half, s);
      }
    }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[r][t] = sum_of_halves(sum[r][t]);
}

// Four int4 rows, a byte a weight in the order of the blocks, their scales in float32: (blocks, 2, 4, 8).
struct WordTile {
  static constexpr int kRows = 4;
  const uint8_t* row[kRows];
  const float* scales;
};

// The products of a tile's rows with a token: the sums of int4_dots.
inline void int4_tile_dot(const WordTile& tile, const GridToken& x, const Blocks& blocks, int64_t padded, float* out) {
  constexpr int R = WordTile::kRows;
  __m256 sum[R][2] = {};
  const float* scales = tile.scales;
  int64_t begin = 0;
  for (int b = 0; b < blocks.count; begin += 64 * blocks.steps[b++])
#pragma GCC unroll 1
    for (int half = 0; half < 2; ++half, scales += 8 * R) {
      __m256i total[R] = {};
      int64_t k = begin + 32 * half;
      for (int steps = blocks.steps[b]; steps > 0; steps -= kWordSteps) {
        __m256i acc[R][2];
        const auto add = [&](bool first) LAZY_LAMBDA {
          const __m256i high = load_words(x.planes + k), low = load_words(x.planes + padded + k);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile.row[r] + k));
            const __m256i products[2] = {_mm256_maddubs_epi16(w, high), _mm256_maddubs_epi16(w, low)};
#pragma GCC unroll 2
            for (int c = 0; c < 2; ++c) {
              acc[r][c] = first ? products[c] : _mm256_add_epi16(acc[r][c], products[c]);
              settle(acc[r][c]);
            }
          }
          k += 64;
        };
        repeat<kWordSteps>(steps, add);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) total[r] = _mm256_add_epi32(total[r], joined(acc[r][0], acc[r][1]));
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][half] = add_half_block(sum[r][half], total[r], x, b, half, _mm256_loadu_ps(scales + 8 * r));
    }
  for (int r = 0; r < R; ++r) out[r] = sum_of_halves(sum[r]);
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
