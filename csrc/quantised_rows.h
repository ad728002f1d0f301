// Dot products of quantised rows with tokens. Tokens are kept on a grid of 16 bits, as two int8 planes.
#pragma once
#include "quantised.h"
#include "grid_token.h"
#include "quantised_bytes.h"
#include "quantised_lines.h"
#include "quantised_words.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int kGridTile = kMaxTile;

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

#if LAZY_VNNI || LAZY_WORDS

// Fetches what is read next: a run of lines whose number is known, or whatever `lines` says.
template <bool Run>
struct Fetch {
  const char* at;
  Lines& lines;

  LAZY_INLINE void operator()() {
    if constexpr (Run) {
      __builtin_prefetch(at);
      at += 64;
    } else {
      lines();
    }
  }
};

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

// Cache lines that R rows are.
template <int R>
LAZY_INLINE int64_t lines_of(const QuantisedProblem& p, bool one_piece) {
  if (p.bits == 8) return R * p.padded_in / 64;
  return R * (p.padded_in / 128 + (one_piece ? (p.blocks.count + 1) / 2 : 0));
}

// Rows row[0], row[1] .. with T tokens.
template <int R, int T>
LAZY_INLINE void grid_dots(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row,
                           const GridToken* const* x, float (*out)[T], Lines& lines) {
  const bool one = one_piece(p, rows);
  const uint8_t* bytes[R];
  for (int r = 0; r < R; ++r) bytes[r] = rows.bytes + row[r] * rows.stride;
  const auto go = [&](auto fetch) LAZY_LAMBDA {
    if (p.bits == 8) {
      const float* scale[R];
      for (int r = 0; r < R; ++r) scale[r] = scale_of<float>(rows, row[r]);
      int8_dots<R, T>(bytes, scale, x, p.padded_in, out, fetch);
    } else {
      const bf16* scale[R];
      for (int r = 0; r < R; ++r) scale[r] = scale_of<bf16>(rows, row[r]);
      int4_dots<R, T>(bytes, scale, p.blocks, x, p.padded_in, out, one, fetch);
    }
  };
  if (const char* run = lines.run(lines_of<R>(p, one))) go(Fetch<true>{run, lines});
  else go(Fetch<false>{nullptr, lines});
}

#endif

// R rows of a matrix with the tokens of a tile: out[r * kGridTile + t].
template <int R>
inline void rows_dots(const QuantisedProblem& p, const QuantisedRows& rows, const int64_t* row,
                      const GridToken* const* x, int count, float* decoded, float* out, Lines& lines) {
  bool odd = false;
  for (int t = 0; t < count; ++t) odd |= x[t]->odd;
#if LAZY_VNNI || LAZY_WORDS
  constexpr int kTogether = R >= 4 ? 2 : 3;
  const int together = LAZY_WORDS && R >= 4 && p.bits == 4 ? 1 : kTogether;  // what registers hold
  Lines none;  // the first tokens fetch for all
  auto go = [&]<int T>(std::integral_constant<int, T>, int t) {
    float part[R][T];
    grid_dots<R, T>(p, rows, row, x + t, part, t == 0 ? lines : none);
    for (int r = 0; r < R; ++r)
      for (int u = 0; u < T; ++u) out[r * kGridTile + t + u] = part[r][u];
  };
  int t = 0;
  if (together == kTogether)
    for (; t + kTogether <= count; t += kTogether) go(std::integral_constant<int, kTogether>{}, t);
  if (kTogether == 3 && count - t == 2) go(std::integral_constant<int, 2>{}, t);
  else
    for (; t < count; ++t) go(std::integral_constant<int, 1>{}, t);
  if (!odd) return;
#endif
  for (int r = 0; r < R; ++r) {
    decode_row(p, rows, row[r], decoded);
    int t = 0;
#if !LAZY_VNNI && !LAZY_WORDS
    constexpr int kChains = 2;  // of every token, however many stand beside it: they decide the order of its sum
    const float* wide[4];
    for (; !odd && t + 4 <= count; t += 4) {
      for (int j = 0; j < 4; ++j) wide[j] = x[t + j]->wide;
      dots<4, kChains>(decoded, wide, p.d_in, out + r * kGridTile + t);
    }
#endif
    for (; t < count; ++t) {
      if (x[t]->odd) out[r * kGridTile + t] = odd_dot(decoded, x[t]->wide, p.d_in);
#if !LAZY_VNNI && !LAZY_WORDS
      else dots<1, kChains>(decoded, &x[t]->wide, p.d_in, out + r * kGridTile + t);
#endif
    }
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
