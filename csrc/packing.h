// What crosses to the kernels that keep what fires of a hidden activation as bits and values.
#pragma once
#include "problem.h"

namespace lazy {

// (rows, width) numbers, and bits (rows, bytes): bit j % 8 of byte j / 8 says that number j of the row is kept.
struct Packing {
  Dtype dtype;
  int64_t rows, width, bytes;
  const void* dense;
  const void* factor;      // kept only where this is above 0 or NaN too; may be null
  float left, low, high;   // not kept: (-inf, left] and [low, high]
  const uint8_t* bits;
};

struct PackingKernels {
  void (*mark)(const Packing&, int64_t begin, int64_t end, uint8_t* bits);
  void (*gather)(const Packing&, int64_t begin, int64_t end, void* values);         // values of row `begin` and after
  void (*scatter)(const Packing&, int64_t begin, int64_t end, const void* values, void* dense);
};

}  // namespace lazy
