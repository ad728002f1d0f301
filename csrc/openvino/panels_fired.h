// What fires for a token, and the rows of `down` that it adds up.
#pragma once
#include "../sketch.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int64_t kRows = 6;      // tokens whose products stay in registers
constexpr int64_t kTokens = 128;  // of a tile: weights come from beyond the second-level cache once for each

// The neurons that may fire for one token within a range of panels, with their pre-activations. There is room for a vector
// behind the last.
struct List {
  int32_t* neuron;
  float* z;
  int64_t count;
};

// Lists what fires of a panel, from one token's products without the row scale.
inline void enter(const Problem& p, int64_t first, float unscale, const float* products, List& out) {
  for (int c = 0; c < kPanel; c += 16) {
    const v16f z = load16(products + c) * load16(p.certificate.scale + first + c) * unscale +
                   load16(p.certificate.bias + first + c);
    // comparisons are false for NaN, which fires
    const v16i silent = (z <= p.left) | ((z >= p.low) & (z <= p.high));
    const int64_t real = p.d_hidden - first - c;
    const uint32_t there = real >= 16 ? 0xffffu : real <= 0 ? 0u : (1u << real) - 1;
    uint32_t fires = ~mask_of(silent) & there;
#if defined(__AVX512F__)
    const int n = __builtin_popcount(fires);
    const __mmask16 stored = static_cast<__mmask16>((1u << n) - 1);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i neuron = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(first + c)));
    const __mmask16 mask = static_cast<__mmask16>(fires);
    _mm512_mask_storeu_ps(out.z + out.count, stored, _mm512_maskz_compress_ps(mask, reinterpret_cast<__m512>(z)));
    _mm512_mask_storeu_epi32(out.neuron + out.count, stored, _mm512_maskz_compress_epi32(mask, neuron));
    out.count += n;
#else
    float values[16];
    store(values, z);
    for (; fires; fires &= fires - 1) {
      const int lane = __builtin_ctz(fires);
      out.z[out.count] = values[lane];
      out.neuron[out.count++] = static_cast<int32_t>(first + c + lane);
    }
#endif
  }
}

// The same for a token that the grid cannot hold.
inline void enter_odd(const Problem& p, int64_t panel, const float* x, const Token& token, List& out) {
  alignas(64) float z[kPanel];
  odd_product(p.sketch + panel * kPanel * p.padded_in, x, p.d_in, token.unscale, z);
  enter(p, panel * kPanel, token.unscale, z, out);
}

// The second layer: bytes q + 128 in rows that 64 divides, a row for each neuron.
class Down {
 public:
  explicit Down(const Problem& p) : p_(p), stride_(up_to(p.d_out, 64)) {}

  int64_t stride() const { return stride_; }
  const uint8_t* row(int32_t neuron) const { return static_cast<const uint8_t*>(p_.down_rows) + neuron * stride_; }

  // Hidden activations as they are, in units of `step`.
  void sum(const List& fired, float step, float* y) const {
    constexpr int64_t kAhead = 4;  // rows
    for (int64_t c0 = 0; c0 < stride_; c0 += 64) {
      v16f sum[4] = {};
      for (int64_t k = 0; k < fired.count; ++k) {
        const uint8_t* const at = row(fired.neuron[k]) + c0;
        __builtin_prefetch(row(fired.neuron[std::min(k + kAhead, fired.count - 1)]) + c0);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) sum[c] += convert<v16f>(widen16(at + 16 * c) - 128) * fired.z[k];
      }
      float sums[64];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) store(sums + 16 * c, sum[c]);
      for (int64_t c = c0; c < std::min(c0 + 64, p_.d_out); ++c) y[c] = sums[c - c0] * step + bias(c);
    }
  }

 private:
  float bias(int64_t column) const { return p_.down_bias ? static_cast<const float*>(p_.down_bias)[column] : 0.f; }

  const Problem& p_;
  const int64_t stride_;
};

}  // namespace LAZY_ISA
}  // namespace lazy
