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

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
