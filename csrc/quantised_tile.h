// Products of quantised rows with many tokens: arithmetic is what they cost. Eight rows are unpacked once and stay in the
// nearest cache while the tokens of a tile pass by, one after the other.
#pragma once
#include <algorithm>

#include "quantised_rows.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_VNNI

constexpr int kTileRows = 8;

// The sums of the lanes of eight vectors, by halves: the order of `reduce`.
template <class Add>
LAZY_INLINE __m512 sums_of_eight(const __m512* v, Add add) {
  __m512 a[4], b[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    a[i] = add(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44), _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    b[i] = add(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88), _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
  const __m512 c = add(_mm512_shuffle_ps(b[0], b[1], 0x44), _mm512_shuffle_ps(b[0], b[1], 0xee));
  return add(c, _mm512_permute_ps(c, 0xb1));
}

// Where sums_of_eight leaves vector i.
LAZY_INLINE __m512i place_of_eight() {
  return _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14);
}

struct AddFloats {
  LAZY_INLINE __m512 operator()(__m512 a, __m512 b) const { return _mm512_add_ps(a, b); }
};

struct AddIntegers {
  LAZY_INLINE __m512 operator()(__m512 a, __m512 b) const {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }
};

LAZY_INLINE __m256 float_sums(const __m512* v) {
  const __m512 sums = sums_of_eight(v, AddFloats{});
  return _mm512_castps512_ps256(_mm512_permutexvar_ps(place_of_eight(), sums));
}

LAZY_INLINE __m256i integer_sums(const __m512i* v) {
  __m512 as_float[kTileRows];
  for (int r = 0; r < kTileRows; ++r) as_float[r] = _mm512_castsi512_ps(v[r]);
  const __m512i sums = _mm512_castps_si512(sums_of_eight(as_float, AddIntegers{}));
  return _mm512_castsi512_si256(_mm512_permutexvar_epi32(place_of_eight(), sums));
}

// Eight rows, ready for products.
struct RowTile {
  const uint8_t* row[kTileRows];  // a byte a weight
  __m256 scale;                   // int8
  const float* scales;            // int4: (blocks, 8, 16)
};

// int4 rows a byte a weight, in the order of the blocks; their scales in float32.
inline void unpack(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row, uint8_t* bytes,
                   float* scales, RowTile& out) {
  const __m512i mask = _mm512_set1_epi8(15);
  for (int r = 0; r < kTileRows; ++r) {
    uint8_t* to = bytes + r * (p.padded_in + 64);  // rows whose distance is a power of two would share cache sets
    const uint8_t* from = rows.bytes + row[r] * rows.stride;
    for (int64_t k = 0; k < p.padded_in / 2; k += 64) {
      const __m512i pair = _mm512_loadu_si512(from + k);
      _mm512_store_si512(to + 2 * k, _mm512_and_si512(pair, mask));
      _mm512_store_si512(to + 2 * k + 64, _mm512_and_si512(_mm512_srli_epi16(pair, 4), mask));
    }
    const bf16* scale = scale_of<bf16>(rows, row[r]);
    for (int b = 0; b < p.blocks.count; ++b) {
      const v16f s = load16(scale + 16 * b);
      store(scales + (b * kTileRows + r) * 16, s);
    }
    out.row[r] = to;
  }
  out.scales = scales;
}

LAZY_INLINE void add_products(const RowTile& tile, const int8_t* high, const int8_t* low, int64_t at,
                              __m512i (*acc)[kTileRows]) {
  const __m512i h = _mm512_loadu_si512(high + at), l = _mm512_loadu_si512(low + at);
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    const __m512i w = _mm512_loadu_si512(tile.row[r] + at);
    acc[0][r] = add_byte_products(acc[0][r], w, h);
    acc[1][r] = add_byte_products(acc[1][r], w, l);
  }
}

inline __m256 int8_tile_dot(const RowTile& tile, const GridToken& x, int64_t padded) {
  __m512i acc[2][kTileRows] = {};
  for (int64_t k = 0; k < padded; k += 64) add_products(tile, x.planes, x.planes + padded, k, acc);
  const __m256i high = _mm256_sub_epi32(integer_sums(acc[0]), _mm256_set1_epi32(128 * x.sum[0]));
  const __m256i low = _mm256_sub_epi32(integer_sums(acc[1]), _mm256_set1_epi32(128 * x.sum[1]));
  const __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), _mm256_set1_ps(256.f), _mm256_cvtepi32_ps(low));
  return _mm256_mul_ps(_mm256_mul_ps(sum, _mm256_set1_ps(x.step)), tile.scale);
}

inline __m256 int4_tile_dot(const RowTile& tile, const GridToken& x, const Blocks& blocks, int64_t padded) {
  __m512 sum[kTileRows] = {};
  const __m512 step = _mm512_set1_ps(x.step);
  int64_t at = 0;
  for (int b = 0; b < blocks.count; ++b) {
    __m512i acc[2][kTileRows] = {};
    for (int j = 0; j < blocks.steps[b]; ++j, at += 64) add_products(tile, x.planes, x.planes + padded, at, acc);
    const __m512i base = _mm512_loadu_si512(x.base + 16 * b);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
      sum[r] = add_block(sum[r], acc[0][r], acc[1][r], base, step,
                         _mm512_loadu_ps(tile.scales + (b * kTileRows + r) * 16));
  }
  return float_sums(sum);
}

// The products of n consecutive rows with the tokens of a tile: out[row * kGridTile + token]. The row after the last is
// the last again.
inline void tile_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                      const GridToken* const* x, int count, float* out, Lines& fetch) {
  thread_local Scratch memory;
  char* scratch = memory.at_least(static_cast<size_t>(kTileRows * (p.padded_in + 64) + p.blocks.count * kTileRows * 64));
  const int64_t lines = (kTileRows * rows.stride / 64 + count - 1) / count;
  for (int64_t r0 = 0; r0 < n; r0 += kTileRows) {
    RowTile tile;
    int64_t row[kTileRows];
    for (int r = 0; r < kTileRows; ++r) row[r] = first + std::min(r0 + r, n - 1);
    if (p.bits == 4) {
      unpack(p, rows, row, reinterpret_cast<uint8_t*>(scratch),
             reinterpret_cast<float*>(scratch + kTileRows * (p.padded_in + 64)), tile);
      fetch_scales(p, rows, row[0] + kTileRows, kTileRows);
    } else {
      alignas(32) float scale[kTileRows];
      for (int r = 0; r < kTileRows; ++r) {
        tile.row[r] = rows.bytes + row[r] * rows.stride;
        scale[r] = *scale_of<float>(rows, row[r]);
      }
      tile.scale = _mm256_load_ps(scale);
    }
    const uint8_t* ahead = rows.bytes + (row[0] + kTileRows) * rows.stride;
    const int kept = static_cast<int>(std::min<int64_t>(kTileRows, n - r0));
    for (int t = 0; t < count; ++t) {
      for (int64_t line = 0; line < lines; ++line, ahead += 64) {
        __builtin_prefetch(ahead);
        fetch();
      }
      alignas(32) float part[kTileRows];
      _mm256_store_ps(part, p.bits == 8 ? int8_tile_dot(tile, *x[t], p.padded_in)
                                        : int4_tile_dot(tile, *x[t], p.blocks, p.padded_in));
      for (int r = 0; r < kept; ++r) out[(r0 + r) * kGridTile + t] = part[r];
    }
  }
}

#elif LAZY_WORDS

// As unpack() of the other level.
inline void unpack(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row, uint8_t* bytes, float* scales,
                   WordTile& out) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int r = 0; r < WordTile::kRows; ++r) {
    uint8_t* to = bytes + r * (p.padded_in + 64);  // rows whose distance is a power of two would share cache sets
    const uint8_t* from = rows.bytes + row[r] * rows.stride;
    for (int64_t k = 0; k < p.padded_in / 2; k += 32) {
      const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + k));
      uint8_t* const even = to + 2 * (k / 64 * 64) + k % 64;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(even), _mm256_and_si256(pair, mask));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + 64), _mm256_and_si256(_mm256_srli_epi16(pair, 4), mask));
    }
    const bf16* scale = scale_of<bf16>(rows, row[r]);
    for (int b = 0; b < 2 * p.blocks.count; ++b)
      _mm256_storeu_ps(scales + 8 * (b * WordTile::kRows + r), half_scales(scale + 8 * b));
    out.row[r] = to;
  }
  out.scales = scales;
}

// The products of n consecutive rows with the tokens of a tile: out[row * kGridTile + token]. The row after the last is the
// last again.
inline void int8_tile_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                           const GridToken* const* x, int count, float* out) {
  constexpr int R = WordTile::kRows;
  constexpr int kNear = 8;               // tokens of which a piece stays in the nearest cache while all rows pass by
  constexpr int64_t kNearPiece = 1024;
  static_assert(kNearPiece <= kWordPiece);
  const auto nothing = [] {};
  for (int t0 = 0; t0 < count; t0 += kNear) {
    const int near = std::min(kNear, count - t0);
    int64_t total[kPanel][kNear] = {};
    for (int64_t begin = 0; begin < p.padded_in; begin += kNearPiece) {
      const int64_t size = std::min(kNearPiece, p.padded_in - begin);
      for (int64_t r0 = 0; r0 < n; r0 += R) {
        const uint8_t* at[R];
        for (int r = 0; r < R; ++r) at[r] = rows.bytes + (first + std::min(r0 + r, n - 1)) * rows.stride + begin;
        for (int t = 0; t < near; t += 2) {
          const auto add = [&]<int T>(std::integral_constant<int, T>) LAZY_LAMBDA {
            const int8_t* words[T];
            for (int u = 0; u < T; ++u) words[u] = x[t0 + t + u]->planes + 2 * begin;
            int64_t* to[R];
            for (int r = 0; r < R; ++r) to[r] = total[r0 + r] + t;
            word_sums<R, T>(at, words, 0, size, to, nothing);
          };
          if (t + 2 <= near) add(std::integral_constant<int, 2>{});
          else add(std::integral_constant<int, 1>{});
        }
      }
    }
    for (int64_t r = 0; r < n; ++r)
      for (int t = 0; t < near; ++t)
        out[r * kGridTile + t0 + t] = int8_dot(total[r][t], *x[t0 + t], *scale_of<float>(rows, first + r));
  }
}

inline void int4_tile_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                           const GridToken* const* x, int count, float* out) {
  constexpr int R = WordTile::kRows;
  thread_local Scratch memory;
  char* scratch = memory.at_least(static_cast<size_t>(R * (p.padded_in + 64) + p.blocks.count * R * 64));
  for (int64_t r0 = 0; r0 < n; r0 += R) {
    WordTile tile;
    int64_t row[R];
    for (int r = 0; r < R; ++r) row[r] = first + std::min(r0 + r, n - 1);
    unpack(p, rows, row, reinterpret_cast<uint8_t*>(scratch), reinterpret_cast<float*>(scratch + R * (p.padded_in + 64)), tile);
    const int kept = static_cast<int>(std::min<int64_t>(R, n - r0));
    for (int t = 0; t < count; ++t) {
      float part[R];
      int4_tile_dot(tile, *x[t], p.blocks, p.padded_in, part);
      for (int r = 0; r < kept; ++r) out[(r0 + r) * kGridTile + t] = part[r];
    }
  }
}

inline void tile_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                      const GridToken* const* x, int count, float* out, Lines&) {
  (p.bits == 8 ? int8_tile_dots : int4_tile_dots)(p, rows, first, n, x, count, out);
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
