// Inputs and outputs of a block whose weights have 16 bits in a graph that hands on 32. Compiled for the extension's level.
#include "../finish.h"
#include "../simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

template <class From, class To>
void change(const void* from, void* to, int64_t n) {
  const From* in = static_cast<const From*>(from);
  To* out = static_cast<To*>(to);
  for (int64_t k = 0; k < n; ++k) out[k] = narrow(to_float(in[k]), To{});
}

template <class From>
void change_from(const void* from, Dtype to_type, void* to, int64_t n) {
  switch (to_type) {
    case Dtype::bf16: return change<From, bf16>(from, to, n);
    case Dtype::f16: return change<From, f16>(from, to, n);
    default: return change<From, float>(from, to, n);
  }
}

}  // namespace

void convert(Dtype from_type, const void* from, Dtype to_type, void* to, int64_t n) {
  switch (from_type) {
    case Dtype::bf16: return change_from<bf16>(from, to_type, to, n);
    case Dtype::f16: return change_from<f16>(from, to_type, to, n);
    default: return change_from<float>(from, to_type, to, n);
  }
}

// Rows [begin, end) of a block that leaves them to others.
void finish(const Finish& f, Dtype own, const void* y, int64_t begin, int64_t end, int64_t width) {
  for (int64_t t = begin; t < end; ++t) switch (own) {
    case Dtype::bf16: finish_row(f, static_cast<const bf16*>(y) + t * width, t, width); break;
    case Dtype::f16: finish_row(f, static_cast<const f16*>(y) + t * width, t, width); break;
    default: finish_row(f, static_cast<const float*>(y) + t * width, t, width);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
