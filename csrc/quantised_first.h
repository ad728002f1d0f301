// The first layer of a quantised block: which neurons are open, for which tokens, and the rows of `up` that they need.
#pragma once
#include "activation.h"
#include "quantised_down.h"
#include "quantised_tokens.h"

namespace lazy {
namespace LAZY_ISA {

// The neurons of a panel that are open, for which tokens, and the values of the activation there.
struct Open {
  uint64_t any;
  uint8_t count[kPanel];
  uint8_t token[kPanel][kGridTile];
  float value[kPanel][kGridTile];

  // Whether the products of all n neurons with all tokens cost less than one row after the other.
  bool mostly(int64_t n, int tokens) const {
    int64_t pairs = 0;
    for (int64_t i = 0; i < n; ++i) pairs += count[i];
    return 3 * pairs >= 2 * n * tokens;
  }
};

// Whether the activation is zero wherever its argument is not positive.
LAZY_INLINE bool zero_up_to_zero(Activation a) {
  return a == Activation::relu || a == Activation::squared_relu;
}

LAZY_INLINE uint64_t first_bits(int64_t n) { return n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// Neurons of a panel that a single token may open; NaN opens.
template <class T>
uint64_t may_open(const QuantisedProblem& p, int64_t first, int64_t n, const GridToken& x, const float* z) {
  const uint64_t all = first_bits(n);
  if (p.every || x.odd || !zero_up_to_zero(p.activation)) return all;
  uint64_t bits = 0;
  for (int64_t i = 0; i < n; ++i)
    bits |= static_cast<uint64_t>(!(z[i * kGridTile] + bias_of<T>(p.first, first + i) <= 0.f)) << i;
  return bits;
}

// z: the products of rows first .. first + n with the tokens, z[row * kGridTile + token].
template <class T>
void decide(const QuantisedProblem& p, int64_t first, int64_t n, const GridToken* const* x, int count, const float* z,
            Open& out) {
  out.any = 0;
  std::memset(out.count, 0, sizeof(out.count));
  for (uint64_t left = count == 1 ? may_open<T>(p, first, n, *x[0], z) : first_bits(n); left; left &= left - 1) {
    const int i = __builtin_ctzll(left);
    int open = 0;
    const float bias = bias_of<T>(p.first, first + i);
    for (int t = 0; t < count; ++t) {
      const float s = activate<float>(p, z[i * kGridTile + t] + bias);
      // where no grid holds x, `up` may be infinite, and 0 times infinity is NaN
      if (s == 0.f && !p.every && !x[t]->odd) continue;
      out.token[i][open] = static_cast<uint8_t>(t);
      out.value[i][open++] = s;
    }
    out.count[i] = static_cast<uint8_t>(open);
    if (open) out.any |= uint64_t{1} << i;
  }
}

// A hidden activation, folded, from that of the first layer and a product of `up`.
template <class T>
LAZY_INLINE float hidden_value(const QuantisedProblem& p, int64_t neuron, float gate, float product) {
  if (!p.gated) return folded(p, neuron, gate);
  const float up = product + bias_of<T>(p.up, neuron);
  return folded(p, neuron, gate * (p.rectify_up && up <= 0.f ? 0.f : up));
}

}  // namespace LAZY_ISA
}  // namespace lazy
