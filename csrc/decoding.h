// What crosses from the operators around quantised layers (compiled once) to their kernels (once for each ISA level).
#pragma once
#include "problem.h"

namespace lazy {

// y = weight * x / sqrt(mean(x^2) + eps), row by row.
struct NormProblem {
  int64_t rows, width;
  Dtype dtype;
  float eps;
  float offset;        // added to the weight
  bool rounds_first;   // to the dtype before the weight multiplies, as many models do
  const void *x, *weight;
  void* y;
};

// One query for each head and sequence; `groups` heads in a row share keys and values.
struct AttentionProblem {
  int64_t batch, heads, groups, keys, width;
  int64_t room;        // keys that there is memory for, of each head
  Dtype dtype;
  float scale;
  const void* q;       // (batch, heads, width)
  const void *k, *v;   // (batch, heads / groups, room, width)
  void* y;             // (batch, heads, width)
};

using NormKernel = void (*)(const NormProblem&);
using AttentionKernel = void (*)(const AttentionProblem&, int threads, Parallel);

}  // namespace lazy
