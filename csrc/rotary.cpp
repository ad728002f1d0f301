// Rotary position embedding, and sums of hidden states. Compiled once for each ISA level, with the same bits.
#include "rotary.h"

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

template <class T>
void rotate_heads(const RotaryProblem& p) {
  const int64_t half = p.width / 2;
  for (int64_t b = 0; b < p.batch; ++b) {
    const T* cos = static_cast<const T*>(p.cos) + b * p.angle_stride;
    const T* sin = static_cast<const T*>(p.sin) + b * p.angle_stride;
    for (int64_t h = 0; h < p.heads; ++h) {
      const T* x = static_cast<const T*>(p.x) + b * p.x_stride + h * p.width;
      T* y = static_cast<T*>(p.y) + b * p.y_stride + h * p.y_head;
      for (int64_t k = 0; k < half; ++k) {
        const float one = to_float(x[k]), other = to_float(x[k + half]);
        y[k] = narrow(rounded<T>(one * to_float(cos[k])) + rounded<T>(-other * to_float(sin[k])), T{});
        y[k + half] =
            narrow(rounded<T>(other * to_float(cos[k + half])) + rounded<T>(one * to_float(sin[k + half])), T{});
      }
    }
  }
}

template <class T>
void add_all(int64_t n, const void* a, const void* b, void* y) {
  for (int64_t k = 0; k < n; ++k)
    static_cast<T*>(y)[k] = narrow(to_float(static_cast<const T*>(a)[k]) + to_float(static_cast<const T*>(b)[k]), T{});
}

}  // namespace

void rotate(const RotaryProblem& p) {
  switch (p.dtype) {
    case Dtype::bf16: return rotate_heads<bf16>(p);
    case Dtype::f16: return rotate_heads<f16>(p);
    default: return rotate_heads<float>(p);
  }
}

void add(Dtype dtype, int64_t n, const void* a, const void* b, void* y) {
  switch (dtype) {
    case Dtype::bf16: return add_all<bf16>(n, a, b, y);
    case Dtype::f16: return add_all<f16>(n, a, b, y);
    default: return add_all<float>(n, a, b, y);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
