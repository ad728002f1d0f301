// Marking what fires, and moving it between a dense activation and the packed values; moves bits alone, rounds nothing.
#include "packing.h"

#include <algorithm>
#include <type_traits>

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// Comparisons are false for NaN on the side of zero, so that NaN is kept.
LAZY_INLINE bool keeps(const Packing& p, float z) { return !(z <= p.left) && !(z >= p.low && z <= p.high); }

// Bits of up to 8 numbers.
template <class T>
LAZY_INLINE uint8_t marks(const Packing& p, const T* z, const T* factor, int64_t n) {
  unsigned byte = 0;
  for (int64_t j = 0; j < n; ++j)
    byte |= static_cast<unsigned>(keeps(p, to_float(z[j])) && !(factor && to_float(factor[j]) <= 0.f)) << j;
  return static_cast<uint8_t>(byte);
}

template <class T>
void mark(const Packing& p, int64_t begin, int64_t end, uint8_t* bits) {
  for (int64_t r = begin; r < end; ++r) {
    const T* z = static_cast<const T*>(p.dense) + r * p.width;
    const T* factor = p.factor ? static_cast<const T*>(p.factor) + r * p.width : nullptr;
    uint8_t* out = bits + r * p.bytes;
    int64_t j = 0;
#if defined(__AVX512F__)
    for (; j + 16 <= p.width; j += 16) {
      const __m512 v = reinterpret_cast<__m512>(load16(z + j));
      __mmask16 kept = _mm512_cmp_ps_mask(v, _mm512_set1_ps(p.left), _CMP_NLE_UQ);
      const __mmask16 above = _mm512_cmp_ps_mask(v, _mm512_set1_ps(p.low), _CMP_GE_OQ);
      kept &= static_cast<__mmask16>(~(above & _mm512_cmp_ps_mask(v, _mm512_set1_ps(p.high), _CMP_LE_OQ)));
      if (factor)
        kept &= _mm512_cmp_ps_mask(reinterpret_cast<__m512>(load16(factor + j)), _mm512_setzero_ps(), _CMP_NLE_UQ);
      std::memcpy(out + j / 8, &kept, 2);
    }
#endif
    for (; j < p.width; j += 8) out[j / 8] = marks(p, z + j, factor ? factor + j : nullptr, std::min<int64_t>(8, p.width - j));
  }
}

// Moves the kept ones of up to 8 numbers; returns how many.
template <bool Gather, class T>
LAZY_INLINE int move8(unsigned byte, T* dense, T* values) {
  int n = 0;
  for (; byte; byte &= byte - 1, ++n) {
    const int j = __builtin_ctz(byte);
    if (Gather) values[n] = dense[j];
    else dense[j] = values[n];
  }
  return n;
}

#if defined(__AVX512F__)
LAZY_INLINE void gather16(__mmask16 kept, __mmask16 first, const uint32_t* dense, uint32_t* values) {
  _mm512_mask_storeu_epi32(values, first, _mm512_maskz_compress_epi32(kept, _mm512_loadu_si512(dense)));
}

LAZY_INLINE void gather16(__mmask16 kept, __mmask16 first, const uint16_t* dense, uint16_t* values) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(dense)));
  _mm256_mask_storeu_epi16(values, first, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(kept, wide)));
}

LAZY_INLINE void scatter16(__mmask16 kept, __mmask16 first, const uint32_t* values, uint32_t* dense) {
  _mm512_storeu_si512(dense, _mm512_maskz_expand_epi32(kept, _mm512_maskz_loadu_epi32(first, values)));
}

LAZY_INLINE void scatter16(__mmask16 kept, __mmask16 first, const uint16_t* values, uint16_t* dense) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, values));
  const __m256i spread = _mm512_cvtepi32_epi16(_mm512_maskz_expand_epi32(kept, wide));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dense), spread);
}
#endif

template <bool Gather, class T>
void move(const Packing& p, int64_t begin, int64_t end, T* dense, T* values) {
  for (int64_t r = begin; r < end; ++r) {
    const uint8_t* bits = p.bits + r * p.bytes;
    T* row = dense + r * p.width;
    int64_t j = 0;
#if defined(__AVX512F__)
    for (; j + 16 <= p.width; j += 16) {
      __mmask16 kept;
      std::memcpy(&kept, bits + j / 8, 2);
      const int n = __builtin_popcount(kept);
      const __mmask16 first = static_cast<__mmask16>((1u << n) - 1);
      if constexpr (Gather) gather16(kept, first, row + j, values);
      else scatter16(kept, first, values, row + j);
      values += n;
    }
#endif
    if constexpr (!Gather) std::fill(row + j, row + p.width, T{0});
    for (; j < p.width; j += 8) values += move8<Gather>(bits[j / 8], row + j, values);
  }
}

void mark_any(const Packing& p, int64_t begin, int64_t end, uint8_t* bits) {
  switch (p.dtype) {
    case Dtype::bf16: return mark<bf16>(p, begin, end, bits);
    case Dtype::f16: return mark<f16>(p, begin, end, bits);
    default: return mark<float>(p, begin, end, bits);
  }
}

template <bool Gather>
void move_any(const Packing& p, int64_t begin, int64_t end, void* dense, void* values) {
  if (p.dtype == Dtype::f32) move<Gather>(p, begin, end, static_cast<uint32_t*>(dense), static_cast<uint32_t*>(values));
  else move<Gather>(p, begin, end, static_cast<uint16_t*>(dense), static_cast<uint16_t*>(values));
}

void gather(const Packing& p, int64_t begin, int64_t end, void* values) {
  move_any<true>(p, begin, end, const_cast<void*>(p.dense), values);
}

void scatter(const Packing& p, int64_t begin, int64_t end, const void* values, void* dense) {
  move_any<false>(p, begin, end, dense, const_cast<void*>(values));
}

}  // namespace

PackingKernels packing_kernels() { return {mark_any, gather, scatter}; }

}  // namespace LAZY_ISA
}  // namespace lazy
