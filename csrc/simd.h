// Numbers of models as vectors of sixteen lanes, and dot products of their rows.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "lanes.h"
#include "problem.h"

// How whole numbers are multiplied: bytes four at a time, or words in pairs; else as floats.
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define LAZY_VNNI 1
#else
#define LAZY_VNNI 0
#endif
#if defined(__AVX2__) && !LAZY_VNNI
#define LAZY_WORDS 1
#else
#define LAZY_WORDS 0
#endif

namespace lazy {
namespace LAZY_ISA {

typedef int8_t v16b __attribute__((vector_size(16)));

// The bounds on rounding are those of IEEE round-to-nearest.
inline bool rounds_to_nearest() {
#if defined(__x86_64__)
  return (_mm_getcsr() & _MM_ROUND_MASK) == _MM_ROUND_NEAREST;
#else
  return std::fegetround() == FE_TONEAREST;
#endif
}

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

// Not v16f{} + x, for which GCC adds: -0 would change.
LAZY_INLINE v16f splat(float x) {
#if defined(__AVX512F__)
  return reinterpret_cast<v16f>(_mm512_set1_ps(x));
#elif defined(__AVX2__)
  const Floats v = reinterpret_cast<Floats>(_mm256_set1_ps(x));
  return {v, v};
#else
  return by_register<v16f>([&](int) { return Floats{x, x, x, x}; });
#endif
}

LAZY_INLINE v16f load16(const float* p) { return load_as<v16f>(p); }

LAZY_INLINE v16f load16(const bf16* p) {
#if defined(__AVX512F__)
  typedef uint16_t Halves __attribute__((vector_size(32)));
  const v16u wide = convert<v16u>(load_as<Halves>(p)) << 16;
#elif defined(__AVX2__)
  const v16u wide = by_register<v16u>([&](int lane) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + lane));
    return reinterpret_cast<Words>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  });
#else
  typedef uint16_t Halves __attribute__((vector_size(8)));
  const v16u wide = by_register<v16u>([&](int lane) {
    return __builtin_convertvector(load_as<Halves>(p + lane), Words) << 16;
  });
#endif
  return bits_as<v16f>(wide);
}

LAZY_INLINE v16f load16(const int8_t* p) {
#if defined(__AVX512F__)
  // GCC 12 takes a direct conversion from bytes to floats apart into scalars
  const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return reinterpret_cast<v16f>(_mm512_cvtepi32_ps(wide));
#elif defined(__AVX2__)
  return by_register<v16f>([&](int lane) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + lane));
    return reinterpret_cast<Floats>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
  });
#else
  return by_register<v16f>([&](int lane) {
    const Integers wide = {p[lane], p[lane + 1], p[lane + 2], p[lane + 3]};
    return __builtin_convertvector(wide, Floats);
  });
#endif
}

LAZY_INLINE v16i widen16(const uint8_t* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<v16i>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return by_register<v16i>([&](int lane) {
    return reinterpret_cast<Integers>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + lane))));
  });
#else
  return by_register<v16i>([&](int lane) { return Integers{p[lane], p[lane + 1], p[lane + 2], p[lane + 3]}; });
#endif
}

// A bit for every lane of a comparison that holds.
LAZY_INLINE uint32_t mask_of(v16i v) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(v.low))) |
         static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(v.high))) << 8;
#else
  uint32_t mask = 0;
  for (int lane = 0; lane < 16; ++lane) mask |= static_cast<uint32_t>(v[lane] != 0) << lane;
  return mask;
#endif
}

// Integers of 8 bits, which they fit.
LAZY_INLINE v16b bytes_of(v16i v) {
#if defined(__AVX512F__)
  return convert<v16b>(v);
#elif defined(__AVX2__)
  const __m256i pairs = _mm256_packs_epi32(reinterpret_cast<__m256i>(v.low), reinterpret_cast<__m256i>(v.high));
  const __m256i ordered = _mm256_permute4x64_epi64(pairs, 0xd8);
  return reinterpret_cast<v16b>(_mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
#else
  v16b out;
  for (int lane = 0; lane < 16; ++lane) out[lane] = static_cast<int8_t>(v[lane]);
  return out;
#endif
}

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
#elif defined(__AVX2__)
  return by_register<v16f>([&](int lane) {
    return reinterpret_cast<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + lane))));
  });
#else
  float wide[16];
  for (int i = 0; i < 16; ++i) wide[i] = to_float(p[i]);
  return load_as<v16f>(wide);
#endif
}

LAZY_INLINE float reduce(v16f v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(v));
#else
  const auto eight = v.low + v.high;  // the order is that of the reduction above
#if defined(__AVX2__)
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(reinterpret_cast<__m256>(eight)),
                                 _mm256_extractf128_ps(reinterpret_cast<__m256>(eight), 1));
#else
  const Floats four = eight.low + eight.high;
#endif
  return (four[0] + four[2]) + (four[1] + four[3]);
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

// What token rows are kept as for dot products with rows of W.
template <class W>
struct TokenRow { using type = float; };

template <class W, class X>
LAZY_INLINE void multiply_add(v16f& sum, const W* w, const X* x) { sum += load16(w) * load16(x); }

template <class W>
constexpr int kLanes = 16;  // elements that one multiply_add takes

#if defined(__AVX512BF16__)
template <>
struct TokenRow<bf16> { using type = bf16; };
template <>
constexpr int kLanes<bf16> = 32;

LAZY_INLINE void multiply_add(v16f& sum, const bf16* w, const bf16* x) {
  sum = reinterpret_cast<v16f>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), load_as<__m512bh>(w), load_as<__m512bh>(x)));
}
#endif

#if LAZY_VNNI
// sum + the products of bytes with signed bytes (_mm512_dpbusd_epi32), or of words. GCC 12 copies the sums of the intrinsics
// from register to register, twice a product, which took a third of the time of a row (2026-11, Zen 5).
#if defined(LAZY_EMULATED)
using emulated::add_byte_products, emulated::add_word_products;
#else
LAZY_INLINE __m512i add_byte_products(__m512i sum, __m512i bytes, __m512i signed_bytes) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(signed_bytes));
  return sum;
}

LAZY_INLINE __m512i add_word_products(__m512i sum, __m512i a, __m512i b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
#endif
#endif

// Dot products of one weight row with N token rows, each in U chains: at least four hide the latency of a multiply-add.
template <int N, int U = N >= 4 ? 1 : 4 / N, class W, class X>
LAZY_INLINE void dots(const W* row, const X* const* x, int64_t n, float* out) {
#if !defined(__AVX512F__)
  if constexpr (N > 4) {  // whose sums would not fit the registers
    dots<4, U>(row, x, n, out);
    return dots<N - 4, U>(row, x + 4, n, out + 4);
  }
#endif
  constexpr int L = kLanes<W>;
  v16f sum[N][U] = {};
  int64_t k = 0;
  for (; k + L * U <= n; k += L * U)
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) multiply_add(sum[j][u], row + k + L * u, x[j] + k + L * u);
  for (; k + L <= n; k += L)
    for (int j = 0; j < N; ++j) multiply_add(sum[j][0], row + k, x[j] + k);
  for (int j = 0; j < N; ++j) {
    v16f total = sum[j][0];
    for (int u = 1; u < U; ++u) total += sum[j][u];
    out[j] = reduce(total);
  }
  for (; k < n; ++k)
    for (int j = 0; j < N; ++j) out[j] += to_float(row[k]) * to_float(x[j][k]);
}

// A list of memory ranges that are wanted soon, fetched a cache line at a time from inside other work.
class Ahead {
 public:
  void clear() { count_ = at_ = 0; offset_ = 0; }
  void want(const void* start) { start_[count_++] = static_cast<const char*>(start); }
  int64_t lines(int64_t bytes) const { return count_ * ((bytes + 63) / 64); }
  LAZY_INLINE void fetch(int64_t bytes) {
    if (at_ >= count_) return;
    __builtin_prefetch(start_[at_] + offset_, 0, 2);
    offset_ += 64;
    if (offset_ >= bytes) { offset_ = 0; ++at_; }
  }

 private:
  const char* start_[kPanel];
  int count_ = 0, at_ = 0;
  int64_t offset_ = 0;
};

}  // namespace LAZY_ISA
}  // namespace lazy
