// What crosses to the element-wise kernels: contiguous tensors of one dtype.
#pragma once
#include "problem.h"

namespace lazy {

struct Elements {
  Dtype dtype;
  const void* x;
  const void* gradient;  // null in the forward pass
  void* out;
  float mix, cap;        // cap is infinity for none
};

// The elements from begin up to, but not including, end.
using ElementKernel = void (*)(const Elements&, int64_t begin, int64_t end);

}  // namespace lazy
