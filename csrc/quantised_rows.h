// Dot products of quantised rows with tokens. Tokens are kept on a grid of 16 bits, as two int8 planes.
#pragma once
#include "quantised.h"
#include "sketch.h"

namespace lazy {
namespace LAZY_ISA {

// A token as the products read it.
struct GridToken {
  const int8_t* planes;   // 2 x padded_in, high first; in the order of the blocks when rows are int4
  const int32_t* base;    // int4: (blocks, 16), 8 times the sums of x that a lane covers
  const float* wide;      // (d_in)
  float step;             // x ~ step * (256 * high + low)
  int32_t sum[2];         // of the planes
  bool odd;               // no grid holds x, or there are no planes here: `wide` is what counts
};

constexpr int kGridTile = kMaxTile;

LAZY_INLINE float bf16_value(const void* scales, int64_t i) { return to_float(static_cast<const bf16*>(scales)[i]); }

inline int64_t row_bytes(const QuantisedProblem& p) { return p.bits == 8 ? p.padded_in : p.padded_in / 2; }

template <class S>
LAZY_INLINE const S* scale_of(const QuantisedRows& rows, int64_t row) {
  return static_cast<const S*>(rows.scale) + row * rows.scale_stride;
}

// A row's weights in order, scales included; padding left out.
inline void decode_row(const QuantisedProblem& p, const QuantisedRows& rows, int64_t row, float* out) {
  const uint8_t* bytes = rows.bytes + row * rows.stride;
  if (p.bits == 8) {
    const float scale = *scale_of<float>(rows, row);
    for (int64_t k = 0; k < p.d_in; ++k) out[k] = static_cast<float>(bytes[k] - 128) * scale;
    return;
  }
  const bf16* scale = scale_of<bf16>(rows, row);
  int64_t start = 0;
  for (int b = 0; b < p.blocks.count; ++b, scale += 16) {
    const int steps = p.blocks.steps[b];
    for (int lane = 0; lane < 16; ++lane) {
      const float s = to_float(scale[lane]);
      for (int j = 0; j < steps; ++j)
        for (int c = 0; c < 4; ++c) {
          const int64_t k = start + lane * 4 * steps + 4 * j + c;
          if (k >= p.d_in) continue;
          const uint8_t byte = bytes[start / 2 + j / 2 * 64 + lane * 4 + c];
          out[k] = static_cast<float>((j & 1 ? byte >> 4 : byte & 15) - 8) * s;
        }
    }
    start += 64 * steps;
  }
}

// What no grid holds: sums in double, so that only what leaves float32 in the end does.
inline float odd_dot(const float* row, const float* x, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += static_cast<double>(row[k]) * static_cast<double>(x[k]);
  return static_cast<float>(sum);
}

// Whether a row's scales stand behind its weights.
LAZY_INLINE bool one_piece(const QuantisedProblem& p, const QuantisedRows& rows) {
  return p.bits == 4 && rows.scale == rows.bytes + row_bytes(p);
}

// Bytes of a row that one stream fetches.
LAZY_INLINE int64_t piece(const QuantisedProblem& p, const QuantisedRows& rows) {
  return one_piece(p, rows) ? rows.stride : row_bytes(p);
}

// The scales of n rows, unless they come with their weights.
inline void fetch_scales(const QuantisedProblem& p, const QuantisedRows& rows, int64_t row, int64_t n) {
  if (p.bits == 8) {
    __builtin_prefetch(scale_of<float>(rows, row));
  } else if (!one_piece(p, rows)) {
    for (int64_t r = row; r < row + n; ++r)
      for (int64_t k = 0; k < p.blocks.count * 16; k += 32) __builtin_prefetch(scale_of<bf16>(rows, r) + k);
  }
}

// What comes after the rows that are multiplied next, fetched from inside the work that waits for no memory.
struct Stream {
  const uint8_t* at = nullptr;
  const uint8_t* end = nullptr;

  LAZY_INLINE void operator()() {
    if (at >= end) return;
    __builtin_prefetch(at, 0, 2);
    at += 64;
  }
};

// Rows that are wanted soon: fetched a line of each list at a time, from inside products of other rows.
struct Fetch {
  Ahead* up = nullptr;
  int64_t up_bytes = 0;
  Ahead* down = nullptr;
  int64_t down_bytes = 0;
  Stream* stream = nullptr;

  LAZY_INLINE void operator()() const {
    if (stream) (*stream)();
    if (up) up->fetch(up_bytes);
    if (down) down->fetch(down_bytes);
  }
};

#if LAZY_VNNI

// out[r][t] = row r . token t, for R int8 rows and T tokens. `ahead`: what is used soon, fetched a line after the other
// in the order of memory; null when others fetch.
template <int R, int T>
LAZY_INLINE void int8_dots(const uint8_t* const* rows, const float* const* scale, const GridToken* const* x,
                           int64_t padded, float (*out)[T], const uint8_t* ahead, Fetch fetch) {
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
      if (ahead) __builtin_prefetch(ahead + R * k + 64 * r);
      fetch();
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m512i high = _mm512_loadu_si512(x[t]->planes + k), low = _mm512_loadu_si512(x[t]->planes + padded + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        acc[r][2 * t] = _mm512_dpbusd_epi32(acc[r][2 * t], w[r], high);
        acc[r][2 * t + 1] = _mm512_dpbusd_epi32(acc[r][2 * t + 1], w[r], low);
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

template <int R, int T>
LAZY_INLINE void int4_dots(const uint8_t* const* rows, const bf16* const* scale, const Blocks& blocks,
                           const GridToken* const* x, int64_t padded, float (*out)[T], const uint8_t* ahead,
                           bool one_piece, Fetch fetch) {
  const __m512i mask = _mm512_set1_epi8(15);
  constexpr int kChains = R == 1 ? 2 : 1;  // a single row has to hide its own latency
  __m512 sum[R][T] = {};
  int64_t at = 0;
  for (int b = 0; b < blocks.count; ++b) {
    __m512i acc[R][2 * T], more[R][2 * T];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < 2 * T; ++t) acc[r][t] = more[r][t] = _mm512_setzero_si512();
    for (int j = 0; j < blocks.steps[b]; j += 2, at += 64) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i pair = _mm512_loadu_si512(rows[r] + at);
        if (ahead) __builtin_prefetch(ahead += 64);
        fetch();
        const __m512i even = _mm512_and_si512(pair, mask), odd = _mm512_and_si512(_mm512_srli_epi16(pair, 4), mask);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const int8_t* high = x[t]->planes + 2 * at;
          const int8_t* low = high + padded;
          acc[r][2 * t] = _mm512_dpbusd_epi32(acc[r][2 * t], even, _mm512_loadu_si512(high));
          acc[r][2 * t + 1] = _mm512_dpbusd_epi32(acc[r][2 * t + 1], even, _mm512_loadu_si512(low));
          auto& next = kChains == 2 ? more : acc;
          next[r][2 * t] = _mm512_dpbusd_epi32(next[r][2 * t], odd, _mm512_loadu_si512(high + 64));
          next[r][2 * t + 1] = _mm512_dpbusd_epi32(next[r][2 * t + 1], odd, _mm512_loadu_si512(low + 64));
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512 s = reinterpret_cast<__m512>(load16(scale[r] + 16 * b));
      if (ahead && one_piece && b % 2 == 0) __builtin_prefetch(ahead += 64);  // scales of two blocks are a line
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        if constexpr (kChains == 2) {
          acc[r][2 * t] = _mm512_add_epi32(acc[r][2 * t], more[r][2 * t]);
          acc[r][2 * t + 1] = _mm512_add_epi32(acc[r][2 * t + 1], more[r][2 * t + 1]);
        }
        sum[r][t] = add_block(sum[r][t], acc[r][2 * t], acc[r][2 * t + 1], _mm512_loadu_si512(x[t]->base + 16 * b),
                              _mm512_set1_ps(x[t]->step), s);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[r][t] = _mm512_reduce_add_ps(sum[r][t]);
}

// The planes of a token in the order of the blocks, and what the offset of 8 adds in each lane.
inline void reorder(const Blocks& blocks, int64_t padded, const int8_t* planes, int8_t* out, int32_t* base) {
  int64_t start = 0;
  for (int b = 0; b < blocks.count; ++b) {
    const int steps = blocks.steps[b];
    for (int lane = 0; lane < 16; ++lane) {
      int32_t sum = 0;
      for (int plane = 0; plane < 2; ++plane) {
        const int8_t* from = planes + plane * padded + start + lane * 4 * steps;
        int8_t* to = out + plane * padded + start + lane * 4;
        int32_t part = 0;
        for (int j = 0; j < steps; ++j) {
          std::memcpy(to + 64 * j, from + 4 * j, 4);
          part += from[4 * j] + from[4 * j + 1] + from[4 * j + 2] + from[4 * j + 3];
        }
        sum += plane == 0 ? part * 256 : part;
      }
      base[16 * b + lane] = 8 * sum;
    }
    start += 64 * steps;
  }
}

// Rows row[0], row[1] .. with T tokens.
template <int R, int T>
LAZY_INLINE void grid_dots(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row,
                           const GridToken* const* x, float (*out)[T], const uint8_t* ahead, Fetch fetch) {
  const uint8_t* bytes[R];
  for (int r = 0; r < R; ++r) bytes[r] = rows.bytes + row[r] * rows.stride;
  if (p.bits == 8) {
    const float* scale[R];
    for (int r = 0; r < R; ++r) scale[r] = scale_of<float>(rows, row[r]);
    int8_dots<R, T>(bytes, scale, x, p.padded_in, out, ahead, fetch);
  } else {
    const bf16* scale[R];
    for (int r = 0; r < R; ++r) scale[r] = scale_of<bf16>(rows, row[r]);
    int4_dots<R, T>(bytes, scale, p.blocks, x, p.padded_in, out, ahead, one_piece(p, rows), fetch);
  }
}

#endif

// R rows of a matrix with the tokens of a tile: out[r * kGridTile + t].
template <int R>
inline void rows_dots(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row,
                      const GridToken* const* x, int count, float* decoded, float* out, const uint8_t* ahead,
                      Fetch fetch) {
  bool odd = false;
  for (int t = 0; t < count; ++t) odd |= x[t]->odd;
#if LAZY_VNNI
  constexpr int kTogether = R >= 4 ? 2 : 3;
  auto go = [&]<int T>(std::integral_constant<int, T>, int t) {
    float part[R][T];
    grid_dots<R, T>(p, rows, row, x + t, part, t == 0 ? ahead : nullptr, t == 0 ? fetch : Fetch{});
    for (int r = 0; r < R; ++r)
      for (int u = 0; u < T; ++u) out[r * kGridTile + t + u] = part[r][u];
  };
  int t = 0;
  for (; t + kTogether <= count; t += kTogether) go(std::integral_constant<int, kTogether>{}, t);
  if (kTogether == 3 && count - t == 2) go(std::integral_constant<int, 2>{}, t);
  else if (count - t == 1) go(std::integral_constant<int, 1>{}, t);
  if (!odd) return;
#endif
  for (int r = 0; r < R; ++r) {
    decode_row(p, rows, row[r], decoded);
    int t = 0;
#if !LAZY_VNNI
    constexpr int kChains = 2;  // of every token, however many stand beside it: they decide the order of its sum
    const float* wide[4];
    for (; !odd && t + 4 <= count; t += 4) {
      for (int j = 0; j < 4; ++j) wide[j] = x[t + j]->wide;
      dots<4, kChains>(decoded, wide, p.d_in, out + r * kGridTile + t);
    }
#endif
    for (; t < count; ++t) {
      if (x[t]->odd) out[r * kGridTile + t] = odd_dot(decoded, x[t]->wide, p.d_in);
#if !LAZY_VNNI
      else dots<1, kChains>(decoded, &x[t]->wide, p.d_in, out + r * kGridTile + t);
#endif
    }
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
