// Both layers of a block in int8 by products of bytes, straight from registers to lists and back.
#pragma once
#include "panels_fired.h"

namespace lazy {
namespace LAZY_ISA {

#if LAZY_VNNI

struct Bytes64 {
  uint8_t at[64];
  constexpr Bytes64() : at() { for (int k = 0; k < 64; ++k) at[k] = static_cast<uint8_t>(k); }
};

class FirstLayer {
 public:
  FirstLayer(const Problem& p, Token* tokens, int8_t* numbers) : p_(p), down_(p), tokens_(tokens), numbers_(numbers) {}

  static int64_t bytes_of(const Problem& p) { return p.padded_in; }  // of a token's numbers

  // As measure() does it with one plane, without what only a certificate needs.
  void prepare(int64_t t) const {
    const float* x = row(t);
    int8_t* const out = numbers_ + t * p_.padded_in;
    const int64_t n = p_.d_in;
    const __mmask16 rest = static_cast<__mmask16>((1u << n % 16) - 1);
    __m512i top = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
    top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_maskz_loadu_epi32(rest, x + k), magnitude));
    const int32_t bits = _mm512_reduce_max_epi32(top);  // magnitudes are in the order of their bits
    float largest;
    std::memcpy(&largest, &bits, 4);
    if (largest == 0.f || !(largest >= kLeast && largest <= kMost)) {
      tokens_[t] = measure(x, n, p_.padded_in, 1, out, false);
      return;
    }
    const float factor = 1.f / power_near(largest), reached = largest * factor, step = reached / 127.f;
    const __m512 scale = _mm512_set1_ps(factor), inverse = _mm512_set1_ps(127.f / reached);
    const __m512 magic = _mm512_set1_ps(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
    __m512i sum = _mm512_setzero_si512();
    const auto grid = [&](__m512 v) {
      const __m512 moved = _mm512_fmadd_ps(_mm512_mul_ps(v, scale), inverse, magic);
      const __m512i q = _mm512_sub_epi32(_mm512_castps_si512(moved), _mm512_castps_si512(magic));
      sum = _mm512_add_epi32(sum, q);
      return _mm512_cvtepi32_epi8(q);
    };
    for (k = 0; k + 16 <= n; k += 16) _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), grid(_mm512_loadu_ps(x + k)));
    if (k < n) {
      std::memset(out + k, 0, static_cast<size_t>(p_.padded_in - k));
      _mm_mask_storeu_epi8(out + k, rest, grid(_mm512_maskz_loadu_ps(rest, x + k)));
    }
    Token found = {};
    found.step = step / factor;
    found.unscale = 1.f;
    found.sum[0] = _mm512_reduce_add_epi32(sum);
    tokens_[t] = found;
  }

  // What of the panels [begin, end) may fire for `count` tokens.
  void look(int64_t t0, int64_t count, int64_t begin, int64_t end, List* lists) const {
    bool odd = false;
    for (int64_t t = 0; t < count; ++t) odd |= tokens_[t0 + t].odd;
    const int64_t groups = (count + kRows - 1) / kRows;
    for (int64_t panel = begin; panel < end; ++panel) {
      const uint8_t* bytes = p_.sketch + panel * kPanel * p_.padded_in;
      Next next = {};
      if (groups > 1 && panel + 1 < end) {  // the first products wait for memory, the others fetch for the next panel's
        next = {bytes + kPanel * p_.padded_in, bytes + 2 * kPanel * p_.padded_in, 0};
        next.lines = static_cast<int>((kPanel * p_.padded_in / 64 + groups * p_.padded_in / 4 - 1) / (groups * p_.padded_in / 4));
      }
      uint64_t fired = 0;
      for (int64_t t = 0; t < count; t += kRows) fired |= products(panel, bytes, t0 + t, std::min(kRows, count - t), lists + t, t == 0, next);
      if (p_.tokens <= kTokens)  // more find them in the cache
        for (; fired; fired &= fired - 1) {
          const uint8_t* row = down_.row(static_cast<int32_t>(panel * kPanel + __builtin_ctzll(fired)));
          for (int64_t k = 0; k < down_.stride(); k += 64) __builtin_prefetch(row + k, 0, 2);
        }
      for (int64_t t = 0; odd && t < count; ++t)
        if (tokens_[t0 + t].odd) enter_odd(p_, panel, row(t0 + t), tokens_[t0 + t], lists[t]);
    }
  }

 private:
  const float* row(int64_t t) const { return static_cast<const float*>(p_.x) + t * p_.d_in; }

  // What products with one panel fetch of the next.
  struct Next {
    const uint8_t *at, *end;
    int lines;  // a step
  };

  uint64_t products(int64_t panel, const uint8_t* bytes, int64_t t, int64_t count, List* lists, bool first, Next& next) const {
    const auto go = [&]<int R>(std::integral_constant<int, R>) {
      return first ? products_of<R, true>(panel, bytes, t, lists, next) : products_of<R, false>(panel, bytes, t, lists, next);
    };
    switch (count) {
      case 6: return go(std::integral_constant<int, 6>{});
      case 5: return go(std::integral_constant<int, 5>{});
      case 4: return go(std::integral_constant<int, 4>{});
      case 3: return go(std::integral_constant<int, 3>{});
      case 2: return go(std::integral_constant<int, 2>{});
      default: return go(std::integral_constant<int, 1>{});
    }
  }

  // Lists what fires of a panel for R tokens; a bit for each neuron that does for any.
  template <int R, bool First>
  uint64_t products_of(int64_t panel, const uint8_t* bytes, int64_t t, List* lists, Next& next) const {
    const int64_t padded = p_.padded_in;
    const int8_t* const x = numbers_ + t * padded;
    __m512i sum[R][4];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_set1_epi32(-128 * tokens_[t + r].sum[0]);  // weights are q + 128
    const uint8_t* ahead = next.at;
    for (int64_t k = 0; k < padded; k += 4, bytes += 256) {
      __m512i w[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) w[c] = _mm512_loadu_si512(bytes + 64 * c);
      if constexpr (First)
        for (int c = 0; c < 4; ++c) __builtin_prefetch(bytes + kStreamAhead + 64 * c);
      for (int l = 0; l < next.lines; ++l, ahead += 64) __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m512i four = _mm512_set1_epi32(load_as<int32_t>(x + r * padded + k));
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) sum[r][c] = add_byte_products(sum[r][c], w[c], four);
      }
    }
    next.at = ahead;
    if (ahead >= next.end) next.lines = 0;
    uint64_t fired = 0;
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
      if (!tokens_[t + r].odd) fired |= enter_whole(panel * kPanel, tokens_[t + r], sum[r], lists[r]);
    return fired;
  }

  // Lists what fires of a panel, from the integer products of one token; a bit for each neuron.
  LAZY_INLINE uint64_t enter_whole(int64_t first, const Token& token, const __m512i* sum, List& out) const {
    const __m512 step = _mm512_set1_ps(token.step), left = _mm512_set1_ps(p_.left);
    const float *const scales = p_.certificate.scale + first, *const bias = p_.certificate.bias + first;
    __m512 z[4];
    uint64_t fires = 0;
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(scales + 16 * c), step);
      z[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[c]), scale, _mm512_loadu_ps(bias + 16 * c));
      uint32_t above = _mm512_cmp_ps_mask(z[c], left, _CMP_NLE_UQ);
      if (!relu_)
        above &= ~static_cast<uint32_t>(_mm512_cmp_ps_mask(z[c], _mm512_set1_ps(p_.low), _CMP_GE_OQ) &
                                        _mm512_cmp_ps_mask(z[c], _mm512_set1_ps(p_.high), _CMP_LE_OQ));
      fires |= static_cast<uint64_t>(above & 0xffff) << 16 * c;
    }
    if (const int64_t real = p_.d_hidden - first; real < kPanel) fires &= (uint64_t{1} << real) - 1;
    if (packs_bytes_) list_by_bytes(static_cast<int32_t>(first), fires, z, out);
    else list_by_lanes(static_cast<int32_t>(first), fires, z, out);
    return fires;
  }

  // Places of the bits side by side in one instruction, by which values are then picked: most often there are less than 17.
  static LAZY_INLINE void list_by_bytes(int32_t first, uint64_t fires, const __m512* z, List& out) {
    __m512i places = packed_places(fires);
    const int64_t count = __builtin_popcountll(fires);
    for (int64_t done = 0;;) {
      const __m512i at = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(places));
      const __m512 low = _mm512_permutex2var_ps(z[0], at, z[1]), high = _mm512_permutex2var_ps(z[2], at, z[3]);
      const __mmask16 upper = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
      // what lies behind is written over by the next ones
      _mm512_storeu_ps(out.z + out.count + done, _mm512_mask_blend_ps(upper, low, high));
      _mm512_storeu_si512(out.neuron + out.count + done, _mm512_add_epi32(at, _mm512_set1_epi32(first)));
      done += 16;
      if (__builtin_expect(done >= count, 1)) break;
      places = _mm512_shuffle_i32x4(places, places, 0x39);
    }
    out.count += count;
  }

  // The places of the bits of a mask as bytes side by side (VBMI2, which this level does not ask for).
  static LAZY_INLINE __m512i packed_places(uint64_t bits) {
    alignas(64) static constexpr Bytes64 kPlaces;
#if defined(LAZY_EMULATED)
    return emulated::compress_bytes(bits, _mm512_load_si512(kPlaces.at));
#else
    __m512i out;
    __asm__("vpcompressb %1, %0%{%2%}%{z%}" : "=v"(out) : "v"(_mm512_load_si512(kPlaces.at)), "Yk"(static_cast<__mmask64>(bits)));
    return out;
#endif
  }

  static LAZY_INLINE void list_by_lanes(int32_t first, uint64_t fires, const __m512* z, List& out) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __mmask16 here = static_cast<__mmask16>(fires >> 16 * c);
      const __m512i neuron = _mm512_add_epi32(lanes, _mm512_set1_epi32(first + 16 * c));
      _mm512_storeu_ps(out.z + out.count, _mm512_maskz_compress_ps(here, z[c]));
      _mm512_storeu_si512(out.neuron + out.count, _mm512_maskz_compress_epi32(here, neuron));
      out.count += __builtin_popcount(here);
    }
  }

  const Problem& p_;
  const Down down_;
  const bool packs_bytes_ = __builtin_cpu_supports("avx512vbmi2");
  const bool relu_ = !(p_.low <= p_.high);  // nothing above `left` is silent
  Token* tokens_;
  int8_t* numbers_;
};

class SecondLayer {
 public:
  explicit SecondLayer(const Problem& p) : p_(p), down_(p), stride_(down_.stride()) {}

  // Hidden activations, of magnitudes up to `top`, on a grid of 8 bits: four rows at once, their bytes side by side.
  void sum_on_grid(const List& fired, float top, float* y) const {
    const __m512 inverse = _mm512_set1_ps(top > 0.f ? 127.f / top : 0.f);
    const __m512i lines = _mm512_set1_epi32(static_cast<int32_t>(stride_ / 64));
    __m512i sum = _mm512_setzero_si512();
    auto* const bytes = reinterpret_cast<uint8_t*>(fired.z);  // each vector's bytes take the place of its values
    for (int64_t k = 0; k < fired.count; k += 16) {
      const __m512i grid = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(fired.z + k), inverse));
      sum = _mm512_add_epi32(sum, grid);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + k), _mm512_cvtepi32_epi8(grid));
      _mm512_storeu_si512(fired.neuron + k, _mm512_mullo_epi32(_mm512_loadu_si512(fired.neuron + k), lines));
    }
    const Rows rows = {fired.neuron, bytes, (fired.count + 3) / 4};
    const int32_t offset = 128 * _mm512_reduce_add_epi32(sum);
    const int64_t all = stride_ / 64, pieces = (all + 5) / 6, most = (all + pieces - 1) / pieces;
    for (int64_t c = 0; c < all; c += most) switch (std::min(most, all - c)) {
      case 6: columns<6>(rows, 64 * c, offset, top / 127.f, y); break;
      case 5: columns<5>(rows, 64 * c, offset, top / 127.f, y); break;
      case 4: columns<4>(rows, 64 * c, offset, top / 127.f, y); break;
      case 3: columns<3>(rows, 64 * c, offset, top / 127.f, y); break;
      case 2: columns<2>(rows, 64 * c, offset, top / 127.f, y); break;
      default: columns<1>(rows, 64 * c, offset, top / 127.f, y);
    }
  }

  void sum(const List& fired, float* y) const { down_.sum(fired, 1.f, y); }

 private:
  // Rows of `down` that a token adds up, four of them a step.
  struct Rows {
    const int32_t* line;  // where each begins, in 64 bytes
    const uint8_t* value;
    int64_t fours;
  };

  template <int G>
  void columns(const Rows& rows, int64_t c0, int32_t offset, float step, float* y) const {
    constexpr int64_t kStepsAhead = 3;
    const uint8_t* const base = static_cast<const uint8_t*>(p_.down_rows) + c0;
    const auto row = [&](int64_t k) { return base + static_cast<int64_t>(rows.line[k]) * 64; };
    __m512i acc[G][4];
#pragma GCC unroll 6
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[g][j] = _mm512_setzero_si512();
    for (int64_t k = 0; k < rows.fours; ++k) {
      const int64_t later = 4 * (k + kStepsAhead < rows.fours ? k + kStepsAhead : k);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
#pragma GCC unroll 6
        for (int g = 0; g < G; ++g) __builtin_prefetch(row(later + j) + 64 * g);
      const uint8_t *a = row(4 * k), *b = row(4 * k + 1), *c = row(4 * k + 2), *d = row(4 * k + 3);
      const __m512i h = _mm512_set1_epi32(load_as<int32_t>(rows.value + 4 * k));
#pragma GCC unroll 6
      for (int g = 0; g < G; ++g) {
        const __m512i r0 = _mm512_loadu_si512(a + 64 * g), r1 = _mm512_loadu_si512(b + 64 * g);
        const __m512i r2 = _mm512_loadu_si512(c + 64 * g), r3 = _mm512_loadu_si512(d + 64 * g);
        const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
        const __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
        acc[g][0] = add_byte_products(acc[g][0], _mm512_unpacklo_epi16(low01, low23), h);
        acc[g][1] = add_byte_products(acc[g][1], _mm512_unpackhi_epi16(low01, low23), h);
        acc[g][2] = add_byte_products(acc[g][2], _mm512_unpacklo_epi16(high01, high23), h);
        acc[g][3] = add_byte_products(acc[g][3], _mm512_unpackhi_epi16(high01, high23), h);
      }
    }
#pragma GCC unroll 6
    for (int g = 0; g < G; ++g) store_sums(acc[g], c0 + 64 * g, offset, step, y);
  }

  // 64 columns from c on; lane l of sum j has columns 16 l + 4 j to 16 l + 4 j + 3.
  LAZY_INLINE void store_sums(const __m512i* sum, int64_t c, int32_t offset, float step, float* y) const {
    const __m512i a0 = _mm512_shuffle_i32x4(sum[0], sum[1], 0x44), a1 = _mm512_shuffle_i32x4(sum[0], sum[1], 0xee);
    const __m512i b0 = _mm512_shuffle_i32x4(sum[2], sum[3], 0x44), b1 = _mm512_shuffle_i32x4(sum[2], sum[3], 0xee);
    const __m512i ordered[4] = {_mm512_shuffle_i32x4(a0, b0, 0x88), _mm512_shuffle_i32x4(a0, b0, 0xdd),
                                _mm512_shuffle_i32x4(a1, b1, 0x88), _mm512_shuffle_i32x4(a1, b1, 0xdd)};
    const float* bias = static_cast<const float*>(p_.down_bias);
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) {
      const int64_t left = p_.d_out - c - 16 * l;
      if (left <= 0) return;
      const __mmask16 there = left >= 16 ? 0xffff : static_cast<__mmask16>((1 << left) - 1);
      const __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(ordered[l], _mm512_set1_epi32(offset)));
      const __m512 start = bias ? _mm512_maskz_loadu_ps(there, bias + c + 16 * l) : _mm512_setzero_ps();
      _mm512_mask_storeu_ps(y + c + 16 * l, there, _mm512_fmadd_ps(whole, _mm512_set1_ps(step), start));
    }
  }

  const Problem& p_;
  const Down down_;
  const int64_t stride_;
};

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
