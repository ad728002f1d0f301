// Products on the Boolean cube; compiled without contraction, so that every ISA level gives the same bits.
#include <cstring>

#include "boolean.h"

namespace lazy::boolean {
namespace LAZY_ISA {
namespace {

typedef double v8d __attribute__((vector_size(64)));
typedef float v8f __attribute__((vector_size(32)));

template <class V, class T> inline V load(const T* p) { V v; std::memcpy(&v, p, sizeof v); return v; }

}  // namespace

void gram_product(const float* gram, int64_t size, int64_t begin, int64_t end, const double* x, double* out) {
  for (int64_t r = begin; r < end; ++r) {
    const float* row = gram + r * size;
    v8d sum[4] = {};
    int64_t k = 0;
    for (; k + 32 <= size; k += 32)
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g)
        sum[g] += __builtin_convertvector(load<v8f>(row + k + 8 * g), v8d) * load<v8d>(x + k + 8 * g);
    const v8d s = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    for (; k < size; ++k) total += static_cast<double>(row[k]) * x[k];
    out[r] = total;
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy::boolean
