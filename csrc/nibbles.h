// Sums of products of nibbles with 16-bit numbers, two rows at a time, in the widest vectors of the ISA level.
#pragma once
#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

// A vector of 16-byte lanes. Of a row of `down` a lane holds 32 columns: byte i columns i and 16 + i.
#if defined(__AVX512F__)

struct Nibbles {
  using Vector = __m512i;
  static constexpr int kLanes = 4;

  LAZY_INLINE static Vector load(const void* p) { return _mm512_loadu_si512(p); }
  LAZY_INLINE static void store(void* p, Vector v) { _mm512_storeu_si512(p, v); }
  LAZY_INLINE static Vector low_pairs(Vector a, Vector b) { return _mm512_unpacklo_epi16(a, b); }
  LAZY_INLINE static Vector high_pairs(Vector a, Vector b) { return _mm512_unpackhi_epi16(a, b); }

  // Nibble N of every 16 bits.
  template <int N>
  LAZY_INLINE static Vector nibble(Vector v) {
    if constexpr (N == 3) return _mm512_srli_epi16(v, 12);
    const Vector moved = N == 0 ? v : _mm512_srli_epi16(v, 4 * N);
    return _mm512_and_si512(moved, _mm512_set1_epi16(15));
  }

  LAZY_INLINE static Vector add_products(Vector sum, Vector a, Vector b) {
#if defined(__AVX512VNNI__)
    return add_word_products(sum, a, b);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
  }

  // One number a lane.
  LAZY_INLINE static Vector spread(const int32_t* p) {
    const __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_castps_si512(_mm512_permutevar_ps(_mm512_castsi512_ps(four), lane));
  }
};

#elif defined(__AVX2__)

struct Nibbles {
  using Vector = __m256i;
  static constexpr int kLanes = 2;

  LAZY_INLINE static Vector load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  LAZY_INLINE static void store(void* p, Vector v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  LAZY_INLINE static Vector low_pairs(Vector a, Vector b) { return _mm256_unpacklo_epi16(a, b); }
  LAZY_INLINE static Vector high_pairs(Vector a, Vector b) { return _mm256_unpackhi_epi16(a, b); }

  template <int N>
  LAZY_INLINE static Vector nibble(Vector v) {
    return _mm256_and_si256(_mm256_srli_epi16(v, 4 * N), _mm256_set1_epi16(15));
  }

  LAZY_INLINE static Vector add_products(Vector sum, Vector a, Vector b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }

  LAZY_INLINE static Vector spread(const int32_t* p) {
    double both;
    std::memcpy(&both, p, 8);
    const __m256i lane = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    return _mm256_castps_si256(_mm256_permutevar_ps(_mm256_castpd_ps(_mm256_set1_pd(both)), lane));
  }
};

#else

struct Nibbles {
  typedef uint16_t Vector __attribute__((vector_size(16)));
  typedef int32_t Sums __attribute__((vector_size(16)));
  static constexpr int kLanes = 1;

  LAZY_INLINE static Vector load(const void* p) { return load_as<Vector>(p); }
  LAZY_INLINE static void store(void* p, Vector v) { std::memcpy(p, &v, 16); }
  LAZY_INLINE static Vector low_pairs(Vector a, Vector b) { return __builtin_shuffle(a, b, Vector{0, 8, 1, 9, 2, 10, 3, 11}); }
  LAZY_INLINE static Vector high_pairs(Vector a, Vector b) { return __builtin_shuffle(a, b, Vector{4, 12, 5, 13, 6, 14, 7, 15}); }

  template <int N>
  LAZY_INLINE static Vector nibble(Vector v) { return (v >> 4 * N) & 15; }

  // a is not negative
  LAZY_INLINE static Vector add_products(Vector sum, Vector a, Vector b) {
    const Sums x = load_as<Sums>(&a), y = load_as<Sums>(&b);
    const Sums total = load_as<Sums>(&sum) + (x & 0xffff) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
    return load_as<Vector>(&total);
  }

  LAZY_INLINE static Vector spread(const int32_t* p) {
    const Sums all = Sums{} + *p;
    return load_as<Vector>(&all);
  }
};

#endif

constexpr int64_t kNibbleColumns = 32 * Nibbles::kLanes;  // of one vector
constexpr int kNibbleSums = 8;                            // vectors of sums of as many columns, in no order
using NibbleVector = Nibbles::Vector;

// sums[h] += the products of both rows' nibbles with words[h], a pair of numbers each.
template <int Halves>
LAZY_INLINE void add_nibbles(NibbleVector a, NibbleVector b, const NibbleVector* words, NibbleVector (*sums)[kNibbleSums]) {
  const NibbleVector pairs[2] = {Nibbles::low_pairs(a, b), Nibbles::high_pairs(a, b)};
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p) {
    const NibbleVector part[4] = {Nibbles::nibble<0>(pairs[p]), Nibbles::nibble<1>(pairs[p]), Nibbles::nibble<2>(pairs[p]),
                                  Nibbles::nibble<3>(pairs[p])};
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n)
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) sums[h][4 * p + n] = Nibbles::add_products(sums[h][4 * p + n], part[n], words[h]);
  }
}

// The column of sum `at` (of 4 a lane) of vector `v`.
constexpr int nibble_column(int v, int at) { return at / 4 * 32 + (v & 1) * 16 + (v & 2) / 2 + 2 * (at % 4 + v / 4 * 4); }

}  // namespace LAZY_ISA
}  // namespace lazy
