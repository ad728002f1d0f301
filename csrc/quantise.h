// What crosses to the kernels that turn weights into quantised bytes.
#pragma once
#include "quantised.h"

namespace lazy {

struct QuantiseProblem {
  Dtype dtype;
  const void* weight;           // row r, number k at r * row_stride + k * stride; one of the strides is 1
  int64_t width;
  int64_t row_stride, stride;
  int bits;
  int64_t group;                // int4: weights that share a scale; it divides the width
  bool by_neuron;               // the layout of `down`, else that of rows along which the input runs
  int64_t padded;               // 64 or 128 divide it; by_neuron: the width
  Blocks blocks;                // of int4 rows that are not by_neuron
  uint8_t* bytes;
  void* scale;
};

// Quantises rows from begin up to, but not including, end; gives how many of them hold NaN or infinity.
using QuantiseKernel = int64_t (*)(const QuantiseProblem&, int64_t begin, int64_t end);

}  // namespace lazy
