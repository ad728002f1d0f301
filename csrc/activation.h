// The activation functions whose zero set the certificate knows.
#pragma once
#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

LAZY_INLINE float smooth_silu(float z) { return z / (1.f + std::exp(-z)); }
LAZY_INLINE float smooth_gelu(float z) { return 0.5f * z * (1.f + std::erf(z * 0.70710678118654752f)); }
LAZY_INLINE float smooth_gelu_tanh(float z) {
  return 0.5f * z * (1.f + std::tanh(0.79788456080286536f * (z + 0.044715f * z * z * z)));
}

// In T, as torch stores it: it compares a smooth function with its threshold after rounding. NaN comes out as NaN: every
// comparison is written so that it is false for NaN on the side of zero.
template <class T, class P>
LAZY_INLINE float activate(const P& p, float z) {
  const float t = p.parameter0;
  switch (p.activation) {
    case Activation::relu: return z <= 0.f ? 0.f : z;
    case Activation::squared_relu: return z <= 0.f ? 0.f : rounded<T>(z * z);
    case Activation::jsrelu: {
      if (z <= 0.f) return 0.f;
      const float mix = p.parameter0, cap = p.parameter1;
      if (mix == 0.f) return z;
      const float inside = z > cap ? cap : z;
      return rounded<T>(std::isinf(cap) ? z + 0.5f * mix * z * z
                                        : z + mix * (0.5f * inside * inside + cap * (z - inside)));
    }
    case Activation::fatrelu: return z <= t ? 0.f : z;
    case Activation::offset_gelu: return z <= t ? 0.f : rounded<T>(rounded<T>(smooth_gelu(z)) - p.parameter1);
    default: break;
  }
  const float s = rounded<T>(p.activation == Activation::thresholded_silu   ? smooth_silu(z)
                             : p.activation == Activation::thresholded_gelu ? smooth_gelu(z)
                                                                            : smooth_gelu_tanh(z));
  return std::fabs(s) <= t ? 0.f : s;
}

}  // namespace LAZY_ISA
}  // namespace lazy
