// Rows of quantised `down`, one a neuron, as the second pass of a block reads them.
#pragma once
#include "firing.h"
#include "quantised.h"

namespace lazy {
namespace LAZY_ISA {

// A piece of a row of int4 `down`.
struct NibbleRow {
  static constexpr int kVectors = 2;
  static constexpr int64_t kLine = 128;
  using Scales = float[kScaledColumns / 32];
  const uint8_t* at;     // of column c0
  const bf16* scale;     // of the row
  int64_t c0;
  int shift;             // a group has 2 ^ shift columns

  // The scales of columns k to k + kScaledColumns, of which there are `width`.
  LAZY_INLINE void scales(int64_t k, int64_t width, Scales& out) const {
    const bf16* from = scale + ((c0 + k) >> shift);
    if (width - k >= kScaledColumns && shift == 5) {
      const v16f s = load16(from);
      std::memcpy(out, &s, sizeof(s));
      return;
    }
    const int64_t end = (c0 + std::min(k + kScaledColumns, width) - 1) >> shift;
    for (int64_t i = 0; scale + end >= from + i; ++i) out[i] = to_float(from[i]);
  }

  // Columns k to k + 32, with the scales of those from k - k % kScaledColumns on.
  LAZY_INLINE void load(int64_t k, const Scales& scales, v16f* out) const {
    const float s = scales[((c0 + k) >> shift) - ((c0 + k / kScaledColumns * kScaledColumns) >> shift)];
#if defined(__AVX512F__)
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + k / 2)));
    const __m512 value = _mm512_mul_ps(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_ps(s));
    out[0] = reinterpret_cast<v16f>(_mm512_permutexvar_ps(both, value));  // by the low four bits
    out[1] = reinterpret_cast<v16f>(_mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), value));
#else
    for (int i = 0; i < 16; ++i) {
      out[0][i] = static_cast<float>((at[k / 2 + i] & 15) - 8) * s;
      out[1][i] = static_cast<float>((at[k / 2 + i] >> 4) - 8) * s;
    }
#endif
  }
  LAZY_INLINE void fetch(int64_t k) const {
    if (k % kLine == 0) __builtin_prefetch(at + k / 2);
  }
};

// Outputs are summed neuron by neuron in segments of the hidden axis, then over segments: in one order, whoever sums.
constexpr int64_t kSegment = 4;  // panels

// Where the row of a neuron begins at column c0. `Row` is what the format asks for.
template <class Row>
LAZY_INLINE Row down_row(const QuantisedProblem& p, int64_t neuron, int64_t c0) {
  if constexpr (std::is_same_v<Row, NibbleRow>)
    return {static_cast<const uint8_t*>(p.down) + neuron * p.down_stride + c0 / 2,
            static_cast<const bf16*>(p.down_scale) + neuron * p.down_scale_stride, c0, __builtin_ctzll(p.group)};
  else
    return {static_cast<const int8_t*>(p.down) + neuron * p.down_stride + c0};
}

// Bytes of a row of `down` that one stream fetches: with its scales where they stand behind it.
inline int64_t down_piece(const QuantisedProblem& p) {
  const int64_t bytes = p.d_out * p.bits / 8;
  const bool one = p.bits == 4 && p.down_scale == static_cast<const char*>(p.down) + bytes && p.d_hidden > 1;
  return one ? p.down_stride : bytes;
}

inline void fetch_down_scale(const QuantisedProblem& p, int64_t neuron) {
  if (p.bits == 8) {
    __builtin_prefetch(static_cast<const float*>(p.down_scale) + neuron * p.down_scale_stride);
    return;
  }
  const int64_t n = p.d_out / p.group;
  const bf16* scale = static_cast<const bf16*>(p.down_scale) + neuron * p.down_scale_stride;
  for (int64_t k = 0; k < n; k += 32) __builtin_prefetch(scale + k);
}

// The scale of an int8 row is folded into the hidden activation.
LAZY_INLINE float folded(const QuantisedProblem& p, int64_t neuron, float value) {
  return p.bits == 8 ? value * static_cast<const float*>(p.down_scale)[neuron * p.down_scale_stride] : value;
}

}  // namespace LAZY_ISA
}  // namespace lazy
