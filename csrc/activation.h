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

// GELU of sixteen numbers, within 1e-6 of it: erf(z / sqrt(2)) / 2 is z times a quotient of polynomials of z * z, which was fitted up
// to 5.3, beyond which erf is 1 to fp32.
LAZY_INLINE v16f smooth_gelu(v16f z) {
  constexpr float kEnd = 5.3f;
  const v16f low = select(z < -kEnd, splat(-kEnd), z), c = select(low > kEnd, splat(kEnd), low), u = c * c;
  v16f above = u * 2.4052067e-8f + 6.3789671e-6f, below = u * 1.2372129e-6f + 7.1346294e-5f;
  above = above * u + 1.6031507e-4f, below = below * u + 1.8364616e-3f;
  above = above * u + 4.6278764e-3f, below = below * u + 2.8137714e-2f;
  above = above * u + 3.2933834e-2f, below = below * u + 2.4921910e-1f;
  above = above * u + 3.9894226e-1f, below = below * u + 1.f;
  return z * (c * (above / below) + .5f);
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
