// JSReLU forward and backward, one pass each; compiled without contraction, so that every ISA level gives the same bits.
#include <type_traits>

#include "elementwise.h"
#include "simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// Zero only where x <= 0 is true, so that NaN comes out as NaN. Plain loops: compilers vectorise them for every level.
template <bool Capped>
LAZY_INLINE float value(float x, float mix, float cap) {
  const float r = x <= 0.f ? 0.f : x;
  if (!Capped) return r * (r * (0.5f * mix) + 1.f);
  const float inside = r > cap ? cap : r;
  return r + (inside * inside * 0.5f + (r - inside) * cap) * mix;
}

template <bool Capped>
LAZY_INLINE float slope(float x, float gradient, float mix, float cap) {
  const float inside = Capped && x > cap ? cap : x;
  const float along = gradient * (inside * mix + 1.f);
  return x <= 0.f ? 0.f : along;
}

constexpr int kPiece = 256;  // float16 goes through a float buffer, since compilers convert it one by one

LAZY_INLINE void widen(const f16* from, float* to) {
  for (int k = 0; k < kPiece; k += 16) {
    const v16f v = load16(from + k);
    store(to + k, v);
  }
}

LAZY_INLINE void narrow_piece(const float* from, f16* to) {
#if defined(__F16C__)
  for (int k = 0; k < kPiece; k += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k), _mm256_cvtps_ph(_mm256_loadu_ps(from + k), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int k = 0; k < kPiece; ++k) to[k] = narrow(from[k], f16{});
#endif
}

template <class T, bool Capped, bool Backward>
LAZY_INLINE void pass(const T* __restrict x, const T* __restrict gradient, T* __restrict out, int64_t n, float mix,
                      float cap) {
  for (int64_t k = 0; k < n; ++k) {
    const float z = to_float(x[k]);
    out[k] = narrow(Backward ? slope<Capped>(z, to_float(gradient[k]), mix, cap) : value<Capped>(z, mix, cap), T{});
  }
}

template <class T, bool Capped, bool Backward>
void run(const Elements& e, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(e.x) + begin;
  const T* gradient = Backward ? static_cast<const T*>(e.gradient) + begin : x;
  T* out = static_cast<T*>(e.out) + begin;
  const int64_t n = end - begin;
  int64_t k = 0;
  if constexpr (std::is_same_v<T, f16>) {
    float wide[3][kPiece];
    for (; k + kPiece <= n; k += kPiece) {
      widen(x + k, wide[0]);
      if (Backward) widen(gradient + k, wide[1]);
      pass<float, Capped, Backward>(wide[0], wide[1], wide[2], kPiece, e.mix, e.cap);
      narrow_piece(wide[2], out + k);
    }
  }
  pass<T, Capped, Backward>(x + k, gradient + k, out + k, n - k, e.mix, e.cap);
}

template <class T>
void choose(const Elements& e, int64_t begin, int64_t end) {
  const bool capped = !std::isinf(e.cap);
  if (e.gradient) capped ? run<T, true, true>(e, begin, end) : run<T, false, true>(e, begin, end);
  else capped ? run<T, true, false>(e, begin, end) : run<T, false, false>(e, begin, end);
}

}  // namespace

void jsrelu(const Elements& e, int64_t begin, int64_t end) {
  switch (e.dtype) {
    case Dtype::bf16: return choose<bf16>(e, begin, end);
    case Dtype::f16: return choose<f16>(e, begin, end);
    default: return choose<float>(e, begin, end);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
