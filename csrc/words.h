// Numbers of a token as words, where no instruction adds up products of bytes.
#pragma once
#include "simd.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_WORDS

// The planes of a token, high first, as one word a number.
inline void join_planes(int64_t padded, const int8_t* planes, int8_t* out) {
  for (int64_t k = 0; k < padded; ++k) {
    const int16_t word = static_cast<int16_t>(256 * planes[k] + planes[padded + k]);
    std::memcpy(out + 2 * k, &word, 2);
  }
}

LAZY_INLINE __m256i load_words(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Sixteen bytes without sign.
LAZY_INLINE __m256i widened(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Adds to two sums what two vectors of words give with the same four words, in pairs. GCC 12 loads a loop's words ahead of all
// products, for which it moves sums to memory.
LAZY_INLINE void add_word_products(__m256i& sum0, __m256i& sum1, __m256i w0, __m256i w1, const int8_t* four) {
  __m256i x, product;
  __asm__("vpbroadcastq %6, %2\n\tvpmaddwd %2, %4, %3\n\tvpaddd %3, %0, %0\n\tvpmaddwd %2, %5, %2\n\tvpaddd %2, %1, %1"
          : "+x"(sum0), "+x"(sum1), "=&x"(x), "=&x"(product)
          : "x"(w0), "x"(w1), "m"(*reinterpret_cast<const int64_t*>(four)));
}

// The same for one vector of words with each of sixteen bytes of a row and one token or two.
LAZY_INLINE void add_row_products(__m256i& sum, __m256i x, const uint8_t* row) {
  __m256i product;
  __asm__("vpmovzxbw %3, %1\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
          : "+x"(sum), "=&x"(product)
          : "x"(x), "m"(*reinterpret_cast<const __m128i_u*>(row)));
}

LAZY_INLINE void add_row_products(__m256i& sum0, __m256i& sum1, __m256i x0, __m256i x1, const uint8_t* row) {
  __m256i w, product;
  __asm__("vpmovzxbw %6, %2\n\tvpmaddwd %4, %2, %3\n\tvpaddd %3, %0, %0\n\tvpmaddwd %5, %2, %2\n\tvpaddd %2, %1, %1"
          : "+x"(sum0), "+x"(sum1), "=&x"(w), "=&x"(product)
          : "x"(x0), "x"(x1), "m"(*reinterpret_cast<const __m128i_u*>(row)));
}

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
