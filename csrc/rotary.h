// What crosses from the operator of a decoding step (compiled once) to its element-wise kernels (once for each ISA level).
#pragma once
#include "problem.h"

namespace lazy {

// Heads turned by the angles of their positions: y = x cos + (-x2, x1) sin, where x1 and x2 are the halves of a head.
// Products and their sum are rounded to the dtype one by one, as element-wise operators of tensors do.
struct RotaryProblem {
  int64_t batch, heads, width;
  Dtype dtype;
  const void* x;         // (heads, width), `x_stride` elements between two sequences
  int64_t x_stride;
  const void *cos, *sin; // (width), `angle_stride` elements between two sequences
  int64_t angle_stride;
  void* y;               // (width), so many elements between two sequences and between two heads:
  int64_t y_stride, y_head;
};

using RotaryKernel = void (*)(const RotaryProblem&);
using AddKernel = void (*)(Dtype dtype, int64_t n, const void* a, const void* b, void* y);  // rounded to the dtype

}  // namespace lazy
