// Sixteen-lane float vectors in GCC's portable vector notation; each ISA build lowers them to its own registers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "problem.h"

namespace lazy {
namespace LAZY_ISA {

typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));
typedef int8_t v16b __attribute__((vector_size(16)));

#define LAZY_INLINE inline __attribute__((always_inline))

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

template <class V>
LAZY_INLINE V load_as(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

LAZY_INLINE v16f splat(float x) { return v16f{} + x; }

LAZY_INLINE v16f load16(const float* p) { return load_as<v16f>(p); }

LAZY_INLINE v16f load16(const bf16* p) {
  v16u wide = __builtin_convertvector(load_as<v16h>(p), v16u) << 16;
  return load_as<v16f>(&wide);
}

LAZY_INLINE v16f load16(const int8_t* p) { return __builtin_convertvector(load_as<v16b>(p), v16f); }

LAZY_INLINE float to_float(float x) { return x; }
LAZY_INLINE float to_float(int8_t x) { return static_cast<float>(x); }

LAZY_INLINE float to_float(bf16 x) {
  uint32_t wide = static_cast<uint32_t>(x.bits) << 16;
  return load_as<float>(&wide);
}

LAZY_INLINE float to_float(f16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 31u, mantissa = x.bits & 1023u;
  if (exponent == 0) return std::copysign(static_cast<float>(mantissa) * 0x1p-24f, sign ? -1.f : 1.f);
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  return load_as<float>(&bits);
#endif
}

LAZY_INLINE v16f load16(const f16* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<v16f>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
  v16f v;
  for (int i = 0; i < 16; ++i) v[i] = to_float(p[i]);
  return v;
#endif
}

LAZY_INLINE float reduce(v16f v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
#else
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = v[i] + v[i + 8];
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
#endif
}

// Rounding of an fp32 value to the model's dtype and back, round-to-nearest-even; NaN stays NaN.
LAZY_INLINE bf16 narrow(float x, bf16) {
  uint32_t bits = load_as<uint32_t>(&x);
  if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return {static_cast<uint16_t>(bits >> 16)};
}

LAZY_INLINE f16 narrow(float x, f16) {
#if defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT))};
#else
  const uint32_t bits = load_as<uint32_t>(&x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(x);
  if (x != x) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x1p-14f)
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)))};
  uint32_t rounded = (bits & 0x7fffffffu) + 0xfffu + ((bits >> 13) & 1u);
  return {static_cast<uint16_t>(sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13))};
#endif
}

LAZY_INLINE float narrow(float x, float) { return x; }

template <class T>
LAZY_INLINE float rounded(float x) {
  return to_float(narrow(x, T{}));
}

// Dot products of one weight row with several token rows, while the next row is fetched.
template <int N, class T>
LAZY_INLINE void dots(const T* row, const float* const* x, int64_t n, const T* next, float* out) {
  constexpr int U = N >= 4 ? 1 : 4 / N;  // independent chains: at least four, to hide the latency of one multiply-add
  v16f sum[N][U] = {};
  int64_t k = 0;
  for (; k + 16 * U <= n; k += 16 * U) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      v16f w = load16(row + k + 16 * u);
      if ((16 * u * sizeof(T)) % 64 == 0) __builtin_prefetch(next + k + 16 * u);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[j][u] += w * load16(x[j] + k + 16 * u);
    }
  }
  for (; k + 16 <= n; k += 16) {
    v16f w = load16(row + k);
    for (int j = 0; j < N; ++j) sum[j][0] += w * load16(x[j] + k);
  }
  for (int j = 0; j < N; ++j) {
    v16f total = sum[j][0];
    for (int u = 1; u < U; ++u) total += sum[j][u];
    out[j] = reduce(total);
  }
  for (; k < n; ++k)
    for (int j = 0; j < N; ++j) out[j] += to_float(row[k]) * x[j][k];
}

}  // namespace LAZY_ISA
}  // namespace lazy
