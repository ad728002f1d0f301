// Rows of quantised `down`, one a neuron, as the second pass of a block reads them.
#pragma once
#include "firing.h"
#include "quantised.h"

namespace lazy {
namespace LAZY_ISA {

// Outputs are summed neuron by neuron in segments of the hidden axis, then over segments: in one order, whoever sums.
constexpr int64_t kSegment = 4;  // panels

// Where the row of a neuron begins at column c0.
LAZY_INLINE const uint8_t* down_row(const QuantisedProblem& p, int64_t neuron, int64_t c0) {
  return static_cast<const uint8_t*>(p.down) + neuron * p.down_stride + c0 * p.bits / 8;
}

// The scales of an int4 row from column c0 on.
LAZY_INLINE const bf16* down_scale(const QuantisedProblem& p, int64_t neuron, int64_t c0) {
  return static_cast<const bf16*>(p.down_scale) + neuron * p.down_scale_stride + c0 / p.group;
}

// The scales of a row of `down`, for `columns` columns from c0 on.
inline void fetch_down_scale(const QuantisedProblem& p, int64_t neuron, int64_t c0, int64_t columns) {
  if (p.bits == 8) {
    __builtin_prefetch(static_cast<const float*>(p.down_scale) + neuron * p.down_scale_stride);
    return;
  }
  const bf16* scale = down_scale(p, neuron, c0);
  for (int64_t k = 0; k < columns / p.group; k += 32) __builtin_prefetch(scale + k);
}

// The scale of an int8 row is folded into the hidden activation.
LAZY_INLINE float folded(const QuantisedProblem& p, int64_t neuron, float value) {
  return p.bits == 8 ? value * static_cast<const float*>(p.down_scale)[neuron * p.down_scale_stride] : value;
}

}  // namespace LAZY_ISA
}  // namespace lazy
