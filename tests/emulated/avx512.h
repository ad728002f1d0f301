// The AVX-512 intrinsics that the kernels use, lane by lane, for processors that do not have them.
//
// What each returns is that of Intel's Intrinsics Guide. Included before every source of an AVX-512 level, which is
// compiled for AVX2 then (see compiler.py). An intrinsic that is missing here stops the compiler.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512VL__ 1
#define __AVX512DQ__ 1
#define LAZY_EMULATED 1
#ifdef LAZY_EMULATED_VNNI
#define __AVX512VNNI__ 1
#define __AVX512BF16__ 1
#endif

namespace emulated {

typedef float Floats __attribute__((vector_size(64), may_alias));
typedef int32_t Integers __attribute__((vector_size(64), may_alias));
typedef uint32_t Unsigned __attribute__((vector_size(64), may_alias));
typedef int16_t Words __attribute__((vector_size(64), may_alias));
typedef uint16_t UnsignedWords __attribute__((vector_size(64), may_alias));
typedef int8_t Bytes __attribute__((vector_size(64), may_alias));
typedef uint8_t UnsignedBytes __attribute__((vector_size(64), may_alias));
typedef uint64_t Longs __attribute__((vector_size(64), may_alias));

#define LAZY_EMULATE inline __attribute__((always_inline, unused))

template <typename Out, typename In>
LAZY_EMULATE Out bits(const In& in) {
  static_assert(sizeof(Out) == sizeof(In));
  Out out;
  std::memcpy(&out, &in, sizeof out);
  return out;
}

template <typename Out>
LAZY_EMULATE Out read(const void* from) {
  Out out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

// out[lane] = f(lane)
template <typename Out, typename F>
LAZY_EMULATE Out each(const F& f) {
  Out out;
  for (unsigned lane = 0; lane < sizeof(Out) / sizeof(out[0]); ++lane) out[lane] = f(lane);
  return out;
}

template <typename Mask, typename F>
LAZY_EMULATE Mask mask(const F& f) {
  Mask out = 0;
  for (unsigned lane = 0; lane < 8 * sizeof(Mask); ++lane) out |= static_cast<Mask>(static_cast<Mask>(f(lane) ? 1 : 0) << lane);
  return out;
}

LAZY_EMULATE __m512i whole(Integers v) { return bits<__m512i>(v); }
LAZY_EMULATE Integers lanes(__m512i v) { return bits<Integers>(v); }

// Lanes that the mask leaves out are neither read nor written.
template <typename Lane, unsigned count>
LAZY_EMULATE auto masked_load(uint64_t mask, const void* from) {
  typedef Lane Vector __attribute__((vector_size(count * sizeof(Lane))));
  Vector out = {};
  for (unsigned lane = 0; lane < count; ++lane)
    if (mask >> lane & 1) out[lane] = read<Lane>(static_cast<const char*>(from) + lane * sizeof(Lane));
  return out;
}

template <typename Lane, unsigned count, typename Vector>
LAZY_EMULATE void masked_store(void* to, uint64_t mask, const Vector& v) {
  Lane all[count];
  static_assert(sizeof all == sizeof v);
  std::memcpy(all, &v, sizeof all);
  for (unsigned lane = 0; lane < count; ++lane)
    if (mask >> lane & 1) std::memcpy(static_cast<char*>(to) + lane * sizeof(Lane), all + lane, sizeof(Lane));
}

// Loads and stores.
LAZY_EMULATE __m512 loadu_ps(const void* p) { return read<__m512>(p); }
LAZY_EMULATE __m512i loadu_si512(const void* p) { return read<__m512i>(p); }
LAZY_EMULATE void storeu_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof v); }
LAZY_EMULATE void storeu_si512(void* p, __m512i v) { std::memcpy(p, &v, sizeof v); }

// The aligned ones stop at an address that the processor would refuse.
LAZY_EMULATE const void* aligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 64) __builtin_trap();
  return p;
}
LAZY_EMULATE __m512 load_ps(const void* p) { return read<__m512>(aligned(p)); }
LAZY_EMULATE __m512i load_si512(const void* p) { return read<__m512i>(aligned(p)); }
LAZY_EMULATE void store_si512(void* p, __m512i v) { std::memcpy(const_cast<void*>(aligned(p)), &v, sizeof v); }

LAZY_EMULATE __m512 maskz_loadu_ps(__mmask16 m, const void* p) { return bits<__m512>(masked_load<float, 16>(m, p)); }
LAZY_EMULATE __m512i maskz_loadu_epi32(__mmask16 m, const void* p) { return bits<__m512i>(masked_load<int32_t, 16>(m, p)); }
LAZY_EMULATE __m256i maskz_loadu_epi16_256(__mmask16 m, const void* p) { return bits<__m256i>(masked_load<int16_t, 16>(m, p)); }
LAZY_EMULATE __m128i maskz_loadu_epi8_128(__mmask16 m, const void* p) { return bits<__m128i>(masked_load<int8_t, 16>(m, p)); }
LAZY_EMULATE void mask_storeu_ps(void* p, __mmask16 m, __m512 v) { masked_store<float, 16>(p, m, v); }
LAZY_EMULATE void mask_storeu_epi32(void* p, __mmask16 m, __m512i v) { masked_store<int32_t, 16>(p, m, v); }
LAZY_EMULATE void mask_storeu_epi16_256(void* p, __mmask16 m, __m256i v) { masked_store<int16_t, 16>(p, m, v); }
LAZY_EMULATE void mask_storeu_epi8_128(void* p, __mmask16 m, __m128i v) { masked_store<int8_t, 16>(p, m, v); }

LAZY_EMULATE __m512 i32gather_ps(__m512i index, const void* base, int scale) {
  return bits<__m512>(each<Floats>([&](unsigned l) {
    return read<float>(static_cast<const char*>(base) + static_cast<int64_t>(lanes(index)[l]) * scale);
  }));
}

// Constants and casts.
LAZY_EMULATE __m512 setzero_ps() { return __m512{}; }
LAZY_EMULATE __m512i setzero_si512() { return __m512i{}; }
LAZY_EMULATE __m512 set1_ps(float x) { return __m512{} + x; }
LAZY_EMULATE __m512i set1_epi32(int x) { return whole(Integers{} + x); }
LAZY_EMULATE __m512i set1_epi16(short x) { return bits<__m512i>(Words{} + x); }
LAZY_EMULATE __m512i set1_epi8(char x) { return bits<__m512i>(Bytes{} + static_cast<int8_t>(x)); }
template <typename... Ints>
LAZY_EMULATE __m512i setr_epi32(Ints... x) {
  static_assert(sizeof...(x) == 16);
  return whole(Integers{x...});
}
LAZY_EMULATE __m512i castps_si512(__m512 v) { return bits<__m512i>(v); }
LAZY_EMULATE __m512 castsi512_ps(__m512i v) { return bits<__m512>(v); }
LAZY_EMULATE __m256i castsi512_si256(__m512i v) { return read<__m256i>(&v); }
LAZY_EMULATE __m128i castsi512_si128(__m512i v) { return read<__m128i>(&v); }
LAZY_EMULATE __m256 castps512_ps256(__m512 v) { return read<__m256>(&v); }
LAZY_EMULATE __m128 castps512_ps128(__m512 v) { return read<__m128>(&v); }
LAZY_EMULATE __m512i broadcast_i32x4(__m128i v) {
  return whole(each<Integers>([&](unsigned l) { return read<int32_t>(reinterpret_cast<const char*>(&v) + 4 * (l % 4)); }));
}
LAZY_EMULATE __m512 broadcast_f32x4(__m128 v) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return v[l % 4]; }));
}

// Floats. The compiler of a kernel decides whether products and sums are joined: here as there by its flags.
LAZY_EMULATE __m512 add_ps(__m512 a, __m512 b) { return a + b; }
LAZY_EMULATE __m512 mul_ps(__m512 a, __m512 b) { return a * b; }
LAZY_EMULATE __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return std::fma(a[l], b[l], c[l]); }));
}
// Equal or unordered: the second operand.
LAZY_EMULATE __m512 max_ps(__m512 a, __m512 b) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return a[l] > b[l] ? a[l] : b[l]; }));
}
LAZY_EMULATE __m512 abs_ps(__m512 v) { return bits<__m512>(bits<Unsigned>(v) & 0x7fffffffu); }

// Predicates 0 to 15 say what less, equal, greater and unordered give; 16 to 31 are the same with other signals.
LAZY_EMULATE bool compares(float a, float b, int predicate) {
  const bool unordered = std::isnan(a) || std::isnan(b), less = a < b, equal = a == b, greater = a > b;
  switch (predicate & 15) {
    case 0: return equal;
    case 1: return less;
    case 2: return less || equal;
    case 3: return unordered;
    case 4: return !equal;
    case 5: return !less;
    case 6: return !(less || equal);
    case 7: return !unordered;
    case 8: return equal || unordered;
    case 9: return !(greater || equal);
    case 10: return !greater;
    case 11: return false;
    case 12: return less || greater;
    case 13: return greater || equal;
    case 14: return greater;
    default: return true;
  }
}
LAZY_EMULATE __mmask16 cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  return mask<__mmask16>([&](unsigned l) { return compares(a[l], b[l], predicate); });
}
LAZY_EMULATE __mmask16 mask_cmp_ps_mask(__mmask16 m, __m512 a, __m512 b, int predicate) {
  return m & cmp_ps_mask(a, b, predicate);
}
// Halves are added to halves until one lane is left.
template <typename Vector, typename F>
LAZY_EMULATE auto reduce(Vector v, const F& f) {
  for (unsigned half = 8; half; half /= 2)
    for (unsigned l = 0; l < half; ++l) v[l] = f(v[l], v[l + half]);
  return v[0];
}
LAZY_EMULATE float reduce_add_ps(__m512 v) { return reduce(v, [](float a, float b) { return a + b; }); }
LAZY_EMULATE float reduce_max_ps(__m512 v) { return reduce(v, [](float a, float b) { return a > b ? a : b; }); }

// Integers.
LAZY_EMULATE __m512i and_si512(__m512i a, __m512i b) { return a & b; }
LAZY_EMULATE __m512i add_epi32(__m512i a, __m512i b) { return bits<__m512i>(bits<Unsigned>(a) + bits<Unsigned>(b)); }
LAZY_EMULATE __m512i sub_epi32(__m512i a, __m512i b) { return bits<__m512i>(bits<Unsigned>(a) - bits<Unsigned>(b)); }
LAZY_EMULATE __m512i mullo_epi32(__m512i a, __m512i b) { return bits<__m512i>(bits<Unsigned>(a) * bits<Unsigned>(b)); }
LAZY_EMULATE __m512i max_epi32(__m512i a, __m512i b) {
  return whole(each<Integers>([&](unsigned l) { return lanes(a)[l] > lanes(b)[l] ? lanes(a)[l] : lanes(b)[l]; }));
}
LAZY_EMULATE __m512i slli_epi32(__m512i v, unsigned n) { return n > 31 ? __m512i{} : bits<__m512i>(bits<Unsigned>(v) << n); }
LAZY_EMULATE __m512i srli_epi32(__m512i v, unsigned n) { return n > 31 ? __m512i{} : bits<__m512i>(bits<Unsigned>(v) >> n); }
LAZY_EMULATE __m512i srli_epi16(__m512i v, unsigned n) { return n > 15 ? __m512i{} : bits<__m512i>(bits<UnsignedWords>(v) >> n); }
LAZY_EMULATE int reduce_add_epi32(__m512i v) {
  return static_cast<int>(reduce(bits<Unsigned>(v), [](uint32_t a, uint32_t b) { return a + b; }));
}
LAZY_EMULATE int reduce_max_epi32(__m512i v) { return reduce(lanes(v), [](int a, int b) { return a > b ? a : b; }); }
LAZY_EMULATE __mmask16 movepi32_mask(__m512i v) {
  return mask<__mmask16>([&](unsigned l) { return lanes(v)[l] < 0; });
}
LAZY_EMULATE __mmask16 test_epi32_mask(__m512i a, __m512i b) {
  return mask<__mmask16>([&](unsigned l) { return lanes(a & b)[l] != 0; });
}
LAZY_EMULATE __mmask64 test_epi8_mask(__m512i a, __m512i b) {
  const Bytes both = bits<Bytes>(a & b);
  return mask<__mmask64>([&](unsigned l) { return both[l] != 0; });
}
LAZY_EMULATE __m512i mask_or_epi32(__m512i from, __mmask16 m, __m512i a, __m512i b) {
  return whole(each<Integers>([&](unsigned l) { return m >> l & 1 ? lanes(a | b)[l] : lanes(from)[l]; }));
}
LAZY_EMULATE __m512 mask_blend_ps(__mmask16 m, __m512 a, __m512 b) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return m >> l & 1 ? b[l] : a[l]; }));
}

// Products of whole numbers.
LAZY_EMULATE __m512i madd_epi16(__m512i a, __m512i b) {
  const Words x = bits<Words>(a), y = bits<Words>(b);
  return bits<__m512i>(each<Unsigned>([&](unsigned l) {
    return static_cast<uint32_t>(x[2 * l] * y[2 * l]) + static_cast<uint32_t>(x[2 * l + 1] * y[2 * l + 1]);
  }));
}
LAZY_EMULATE __m512i dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  const UnsignedBytes x = bits<UnsignedBytes>(a);
  const Bytes y = bits<Bytes>(b);
  return bits<__m512i>(each<Unsigned>([&](unsigned l) {
    uint32_t total = bits<Unsigned>(sum)[l];
    for (unsigned k = 4 * l; k < 4 * l + 4; ++k) total += static_cast<uint32_t>(x[k] * y[k]);
    return total;
  }));
}
// What the kernels say in assembler where the compiler is not trusted.
LAZY_EMULATE __m512i add_byte_products(__m512i sum, __m512i bytes, __m512i signed_bytes) {
  return dpbusd_epi32(sum, bytes, signed_bytes);
}
LAZY_EMULATE __m512i add_word_products(__m512i sum, __m512i a, __m512i b) { return add_epi32(sum, madd_epi16(a, b)); }
LAZY_EMULATE __m512i compress_bytes(__mmask64 m, __m512i v) {
  Bytes out = {};
  unsigned next = 0;
  for (unsigned l = 0; l < 64; ++l)
    if (m >> l & 1) out[next++] = bits<Bytes>(v)[l];
  return bits<__m512i>(out);
}
// Denormals count as zero, in and out; the second of a pair is added first.
LAZY_EMULATE float flushed(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.f, x) : x; }
LAZY_EMULATE float of_bf16(uint16_t x) { return flushed(bits<float>(static_cast<uint32_t>(x) << 16)); }
LAZY_EMULATE __m512 dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  const UnsignedWords x = bits<UnsignedWords>(a), y = bits<UnsignedWords>(b);
  return bits<__m512>(each<Floats>([&](unsigned l) {
    float total = flushed(sum[l]);
    total = flushed(std::fma(of_bf16(x[2 * l + 1]), of_bf16(y[2 * l + 1]), total));
    return flushed(std::fma(of_bf16(x[2 * l]), of_bf16(y[2 * l]), total));
  }));
}

// Conversions.
LAZY_EMULATE __m512 cvtepi32_ps(__m512i v) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return static_cast<float>(lanes(v)[l]); }));
}
LAZY_EMULATE __m512i cvtps_epi32(__m512 v) {
  return whole(each<Integers>([&](unsigned l) { return _mm_cvtss_si32(_mm_set_ss(v[l])); }));
}
template <typename Lane, typename From>
LAZY_EMULATE __m512i widened(From v) {
  Lane all[16];
  static_assert(sizeof all == sizeof v);
  std::memcpy(all, &v, sizeof all);
  return whole(each<Integers>([&](unsigned l) { return static_cast<int32_t>(all[l]); }));
}
LAZY_EMULATE __m512i cvtepi8_epi32(__m128i v) { return widened<int8_t>(v); }
LAZY_EMULATE __m512i cvtepu8_epi32(__m128i v) { return widened<uint8_t>(v); }
LAZY_EMULATE __m512i cvtepu16_epi32(__m256i v) { return widened<uint16_t>(v); }
template <typename To, typename Lane>
LAZY_EMULATE To narrowed(__m512i v) {
  Lane all[16];
  for (unsigned l = 0; l < 16; ++l) all[l] = static_cast<Lane>(lanes(v)[l]);
  return read<To>(all);
}
LAZY_EMULATE __m128i cvtepi32_epi8(__m512i v) { return narrowed<__m128i, int8_t>(v); }
LAZY_EMULATE __m256i cvtepi32_epi16(__m512i v) { return narrowed<__m256i, int16_t>(v); }
LAZY_EMULATE __m512 cvtph_ps(__m256i v) {
  uint16_t all[16];
  std::memcpy(all, &v, sizeof all);
  return bits<__m512>(each<Floats>([&](unsigned l) { return _cvtsh_ss(all[l]); }));
}

// Lanes in another order.
LAZY_EMULATE __m512i maskz_compress_epi32(__mmask16 m, __m512i v) {
  Integers out = {};
  unsigned next = 0;
  for (unsigned l = 0; l < 16; ++l)
    if (m >> l & 1) out[next++] = lanes(v)[l];
  return whole(out);
}
LAZY_EMULATE __m512 maskz_compress_ps(__mmask16 m, __m512 v) { return bits<__m512>(maskz_compress_epi32(m, bits<__m512i>(v))); }
LAZY_EMULATE __m512i maskz_expand_epi32(__mmask16 m, __m512i v) {
  Integers out = {};
  unsigned next = 0;
  for (unsigned l = 0; l < 16; ++l)
    if (m >> l & 1) out[l] = lanes(v)[next++];
  return whole(out);
}
LAZY_EMULATE __m512i permutexvar_epi32(__m512i index, __m512i v) {
  return whole(each<Integers>([&](unsigned l) { return lanes(v)[lanes(index)[l] & 15]; }));
}
LAZY_EMULATE __m512 permutexvar_ps(__m512i index, __m512 v) { return bits<__m512>(permutexvar_epi32(index, bits<__m512i>(v))); }
LAZY_EMULATE __m512 permutex2var_ps(__m512 a, __m512i index, __m512 b) {
  return bits<__m512>(each<Floats>([&](unsigned l) {
    const int from = lanes(index)[l] & 31;
    return from < 16 ? a[from] : b[from - 16];
  }));
}
// Within each 128 bits.
LAZY_EMULATE __m512 permutevar_ps(__m512 v, __m512i index) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return v[(l & ~3u) + (lanes(index)[l] & 3)]; }));
}
LAZY_EMULATE __m512 permute_ps(__m512 v, unsigned order) {
  return bits<__m512>(each<Floats>([&](unsigned l) { return v[(l & ~3u) + (order >> 2 * (l & 3) & 3)]; }));
}
LAZY_EMULATE __m512 shuffle_ps(__m512 a, __m512 b, unsigned order) {
  return bits<__m512>(each<Floats>([&](unsigned l) {
    const unsigned from = (l & ~3u) + (order >> 2 * (l & 3) & 3);
    return (l & 3) < 2 ? a[from] : b[from];
  }));
}
template <typename Vector>
LAZY_EMULATE __m512i unpacked(__m512i a, __m512i b, unsigned upper) {
  const Vector x = bits<Vector>(a), y = bits<Vector>(b);
  const unsigned wide = 16 / sizeof(x[0]);
  return bits<__m512i>(each<Vector>([&](unsigned l) {
    const unsigned from = l / wide * wide + upper * (wide / 2) + l % wide / 2;
    return l & 1 ? y[from] : x[from];
  }));
}
LAZY_EMULATE __m512i unpacklo_epi8(__m512i a, __m512i b) { return unpacked<Bytes>(a, b, 0); }
LAZY_EMULATE __m512i unpackhi_epi8(__m512i a, __m512i b) { return unpacked<Bytes>(a, b, 1); }
LAZY_EMULATE __m512i unpacklo_epi16(__m512i a, __m512i b) { return unpacked<Words>(a, b, 0); }
LAZY_EMULATE __m512i unpackhi_epi16(__m512i a, __m512i b) { return unpacked<Words>(a, b, 1); }
LAZY_EMULATE __m512 unpacklo_ps(__m512 a, __m512 b) { return bits<__m512>(unpacked<Integers>(bits<__m512i>(a), bits<__m512i>(b), 0)); }
LAZY_EMULATE __m512 unpackhi_ps(__m512 a, __m512 b) { return bits<__m512>(unpacked<Integers>(bits<__m512i>(a), bits<__m512i>(b), 1)); }
// Groups of four lanes: the first two of a, the last two of b.
LAZY_EMULATE __m512i shuffle_i32x4(__m512i a, __m512i b, unsigned order) {
  return whole(each<Integers>([&](unsigned l) {
    const unsigned from = 4 * (order >> 2 * (l / 4) & 3) + l % 4;
    return l < 8 ? lanes(a)[from] : lanes(b)[from];
  }));
}
LAZY_EMULATE __m512 shuffle_f32x4(__m512 a, __m512 b, unsigned order) {
  return bits<__m512>(shuffle_i32x4(bits<__m512i>(a), bits<__m512i>(b), order));
}

#undef LAZY_EMULATE

}  // namespace emulated

#define _mm512_abs_ps emulated::abs_ps
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_add_ps emulated::add_ps
#define _mm512_and_si512 emulated::and_si512
#define _mm512_broadcast_f32x4 emulated::broadcast_f32x4
#define _mm512_broadcast_i32x4 emulated::broadcast_i32x4
#define _mm512_castps512_ps128 emulated::castps512_ps128
#define _mm512_castps512_ps256 emulated::castps512_ps256
#define _mm512_castps_si512 emulated::castps_si512
#define _mm512_castsi512_ps emulated::castsi512_ps
#define _mm512_castsi512_si128 emulated::castsi512_si128
#define _mm512_castsi512_si256 emulated::castsi512_si256
#define _mm512_cmp_ps_mask emulated::cmp_ps_mask
#define _mm512_cvtepi32_epi16 emulated::cvtepi32_epi16
#define _mm512_cvtepi32_epi8 emulated::cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepi8_epi32 emulated::cvtepi8_epi32
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 emulated::cvtepu8_epi32
#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd_epi32
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_i32gather_ps emulated::i32gather_ps
#define _mm512_load_ps emulated::load_ps
#define _mm512_load_si512 emulated::load_si512
#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_mask_blend_ps emulated::mask_blend_ps
#define _mm512_mask_cmp_ps_mask emulated::mask_cmp_ps_mask
#define _mm512_mask_or_epi32 emulated::mask_or_epi32
#define _mm512_mask_storeu_epi32 emulated::mask_storeu_epi32
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_maskz_compress_epi32 emulated::maskz_compress_epi32
#define _mm512_maskz_compress_ps emulated::maskz_compress_ps
#define _mm512_maskz_expand_epi32 emulated::maskz_expand_epi32
#define _mm512_maskz_loadu_epi32 emulated::maskz_loadu_epi32
#define _mm512_maskz_loadu_ps emulated::maskz_loadu_ps
#define _mm512_max_epi32 emulated::max_epi32
#define _mm512_max_ps emulated::max_ps
#define _mm512_movepi32_mask emulated::movepi32_mask
#define _mm512_mul_ps emulated::mul_ps
#define _mm512_mullo_epi32 emulated::mullo_epi32
#define _mm512_permute_ps emulated::permute_ps
#define _mm512_permutevar_ps emulated::permutevar_ps
#define _mm512_permutex2var_ps emulated::permutex2var_ps
#define _mm512_permutexvar_epi32 emulated::permutexvar_epi32
#define _mm512_permutexvar_ps emulated::permutexvar_ps
#define _mm512_reduce_add_epi32 emulated::reduce_add_epi32
#define _mm512_reduce_add_ps emulated::reduce_add_ps
#define _mm512_reduce_max_epi32 emulated::reduce_max_epi32
#define _mm512_reduce_max_ps emulated::reduce_max_ps
#define _mm512_set1_epi16 emulated::set1_epi16
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_epi8 emulated::set1_epi8
#define _mm512_set1_ps emulated::set1_ps
#undef _mm512_setr_epi32  // a macro of the compiler's
#define _mm512_setr_epi32 emulated::setr_epi32
#define _mm512_setzero_ps emulated::setzero_ps
#define _mm512_setzero_si512 emulated::setzero_si512
#define _mm512_shuffle_f32x4 emulated::shuffle_f32x4
#define _mm512_shuffle_i32x4 emulated::shuffle_i32x4
#define _mm512_shuffle_ps emulated::shuffle_ps
#define _mm512_slli_epi32 emulated::slli_epi32
#define _mm512_srli_epi16 emulated::srli_epi16
#define _mm512_srli_epi32 emulated::srli_epi32
#define _mm512_store_si512 emulated::store_si512
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_storeu_si512 emulated::storeu_si512
#define _mm512_sub_epi32 emulated::sub_epi32
#define _mm512_test_epi32_mask emulated::test_epi32_mask
#define _mm512_test_epi8_mask emulated::test_epi8_mask
#define _mm512_unpackhi_epi16 emulated::unpackhi_epi16
#define _mm512_unpackhi_epi8 emulated::unpackhi_epi8
#define _mm512_unpackhi_ps emulated::unpackhi_ps
#define _mm512_unpacklo_epi16 emulated::unpacklo_epi16
#define _mm512_unpacklo_epi8 emulated::unpacklo_epi8
#define _mm512_unpacklo_ps emulated::unpacklo_ps
#define _mm256_maskz_loadu_epi16 emulated::maskz_loadu_epi16_256
#define _mm256_mask_storeu_epi16 emulated::mask_storeu_epi16_256
#define _mm_maskz_loadu_epi8 emulated::maskz_loadu_epi8_128
#define _mm_mask_storeu_epi8 emulated::mask_storeu_epi8_128
