// What int4 rows of `down` add to the output of a token: sums of whole numbers, so that no order of neurons, no neuron
// that is left out and no ISA level changes a bit.
//
// Within a segment of neurons and a group of 32 columns the products of hidden activations and scales are kept on a grid whose
// step is a power of two that the largest of them decides: of 31 bits in two halves, as much as float32 holds of them, and of
// 16 bits where the model's dtype has 8 or 11.
#pragma once
#include <algorithm>
#include <type_traits>
#include <vector>

#include "nibbles.h"
#include "quantised.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

// Rows of `down` of one segment, from column c0 on, and what a token multiplies them with.
struct NibbleRows {
  const uint8_t* const* at;      // of column c0; where their number is odd, a row more that is not counted
  const bf16* const* scale;      // of column c0
  const float* value;
  int count;
  int64_t width;                 // columns
  int shift;                     // a scale group has 2 ^ shift columns
};

// Halves of the grid's numbers in a model of dtype T.
template <class T>
constexpr int kHalves = std::is_same_v<T, float> ? 2 : 1;

// Rows on the grid of one token: pairs of 16-bit numbers, the high halves before the low ones where there are two.
template <int Halves>
class NibbleGrid {
 public:
  // `fetch` is called once for 16 groups of a pair.
  template <class Fetch>
  void make(const NibbleRows& rows, Fetch& fetch) {
    const int shift = rows.shift;
    groups_ = rows.width / 32;
    pairs_ = (rows.count + 1) / 2;
    const int64_t padded = up_to(groups_, 16);
    words_.resize(static_cast<size_t>(padded * pairs_ * Halves));
    for (auto& base : base_) base.resize(static_cast<size_t>(padded));
    unit_.resize(static_cast<size_t>(padded));
    odd_ = false;
    for (int64_t g = 0; g < groups_; g += 16) {
      const int n = static_cast<int>(std::min<int64_t>(16, groups_ - g));
      if (shift == 5 && n == 16) make_groups<5, 16>(rows, g, n, fetch);
      else if (shift == 5) make_groups<5, 0>(rows, g, n, fetch);
      else if (shift == 6) make_groups<6, 0>(rows, g, n, fetch);
      else make_groups<7, 0>(rows, g, n, fetch);
    }
  }

  int pairs() const { return pairs_; }
  bool odd() const { return odd_; }
  bool odd(int64_t group) const { return unit_[static_cast<size_t>(group)] < 0; }

  static constexpr int kWords = Halves * Nibbles::kLanes;

  // The numbers of a pair in the groups of a vector, kWords; those of the next pair follow.
  LAZY_INLINE const int32_t* words(int64_t vector, int pair) const { return words_.data() + (vector * pairs_ + pair) * kWords; }
  LAZY_INLINE const int32_t* base(int half, int64_t vector) const { return base_[half].data() + vector * Nibbles::kLanes; }
  LAZY_INLINE const float* unit(int64_t vector) const { return unit_.data() + vector * Nibbles::kLanes; }

 private:
  static constexpr int kBits = Halves == 2 ? 29 : 14;  // of the largest power of two that the largest number has
  static constexpr int32_t kMinusOne = -0x40800000;  // the bits of -1.f

  // Scales of n <= 16 groups of 32 columns, from group g on.
  template <int Shift, int All>
  LAZY_INLINE static v16f scales(const bf16* scale, int64_t g, int n) {
    if constexpr (All == 16) return load16(scale + g);
    constexpr int kEach = 1 << (Shift - 5);
    bf16 some[16] = {};
    std::memcpy(some, scale + g / kEach, sizeof(bf16) * static_cast<size_t>(n / kEach));
    float out[16] = {};
    for (int i = 0; i < n; ++i) out[i] = to_float(some[i / kEach]);
    return load16(out);
  }

  template <int Shift, int All, class Fetch>
  void make_groups(const NibbleRows& rows, int64_t g, int n, Fetch& fetch) {
    v16i most = {};
    for (int j = 0; j < rows.count; ++j) {
      const v16f a = scales<Shift, All>(rows.scale[j], g, n) * rows.value[j];
      const v16i size = bits_as<v16i>(a) & 0x7fffffff;
      most = select(size > most, size, most);
    }
    const v16i power = most >> 23, fits = (power > kBits) & (power < 255);
    const v16i odd = ~fits & (most != 0);  // else there is nothing
    const v16i factor = ((254 + kBits - power) << 23) & fits, unit = (((power - kBits) << 23) & fits) | (odd & kMinusOne);
    store(unit_.data() + g, unit);
    for (int i = 0; i < 16; ++i) odd_ |= odd[i] != 0;
    fill<Shift, All>(rows, g, n, bits_as<v16f>(factor), fetch);
  }

  template <int Shift, int All, class Fetch>
  void fill(const NibbleRows& rows, int64_t g, int n, v16f factor, Fetch& fetch) {
    constexpr int kLanes = Nibbles::kLanes;
    v16i total[Halves] = {};
    for (int pair = 0; pair < pairs_; ++pair) {
      fetch();
      v16i part[2][Halves];
      for (int k = 0; k < 2; ++k) {
        const int j = std::min(2 * pair + k, rows.count - 1);
        const float value = 2 * pair + k < rows.count ? rows.value[j] : 0.f;
        const v16f a = scales<Shift, All>(rows.scale[j], g, n) * value;
        // a factor of 0 leaves nothing of what no grid holds
        split(select(factor == 0.f, v16f{}, a * factor), part[k]);
        for (int h = 0; h < Halves; ++h) total[h] += part[k][h];
      }
      for (int h = 0; h < Halves; ++h) {
        const v16i words = (part[0][h] & 0xffff) | (part[1][h] << 16);
        for (int lane = 0; lane < 16; lane += kLanes) {
          int32_t* to = words_.data() + ((g + lane) / kLanes * pairs_ + pair) * kWords + h * kLanes;
          std::memcpy(to, reinterpret_cast<const int32_t*>(&words) + lane, 4 * kLanes);
        }
      }
    }
    for (int h = 0; h < Halves; ++h) {
      total[h] *= 8;  // a nibble is its number plus 8
      store(base_[h].data() + g, total[h]);
    }
  }

  // Whole numbers of 16 bits.
  LAZY_INLINE static void split(v16f a, v16i* out) {
    if constexpr (Halves == 2) {
      const v16i whole = convert<v16i>(a);
      out[0] = (whole + 0x8000) >> 16;
      out[1] = whole - (out[0] << 16);
    } else {
      const v16f most = splat(32767.f), near = select(a > most, most, a) + splat(12582912.f);  // the nearest, beyond 1.5 * 2^23
      out[0] = bits_as<v16i>(near) - 0x4b400000;
    }
  }

  int64_t groups_ = 0;
  int pairs_ = 0;
  bool odd_ = false;
  std::vector<int32_t> words_, base_[Halves];
  std::vector<float> unit_;  // of a step; negative where no grid holds the numbers
};

// out[column] += the sums, in float32.
template <int Halves>
LAZY_INLINE void add_sums(const NibbleGrid<Halves>& grid, int64_t vector, const NibbleVector (*sums)[kNibbleSums], float* out) {
#if defined(__AVX512F__)
  const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const auto spread = [&](const void* p) {
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(static_cast<const float*>(p))), lane);
  };
  const __m512 unit = _mm512_max_ps(spread(grid.unit(vector)), _mm512_setzero_ps()), step = _mm512_set1_ps(65536.f);
  const auto whole = [&](int half, int v) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[half][v], _mm512_castps_si512(spread(grid.base(half, vector)))));
  };
  __m512 part[kNibbleSums];
#pragma GCC unroll 8
  for (int v = 0; v < kNibbleSums; ++v) {
    __m512 sum = whole(0, v);
    if constexpr (Halves == 2) sum = _mm512_fmadd_ps(sum, step, whole(1, v));
    part[v] = _mm512_mul_ps(sum, unit);
  }
#pragma GCC unroll 2
  for (int s = 0; s < 2; ++s) {
    const __m512 a = _mm512_unpacklo_ps(part[s], part[s + 2]), b = _mm512_unpackhi_ps(part[s], part[s + 2]);
    const __m512 c = _mm512_unpacklo_ps(part[s + 4], part[s + 6]), d = _mm512_unpackhi_ps(part[s + 4], part[s + 6]);
    const __m512 t[4] = {_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee), _mm512_shuffle_f32x4(c, d, 0x44),
                         _mm512_shuffle_f32x4(c, d, 0xee)};
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) {
      const __m512 ordered = l % 2 == 0 ? _mm512_shuffle_f32x4(t[l / 2], t[l / 2 + 2], 0x88)
                                        : _mm512_shuffle_f32x4(t[l / 2], t[l / 2 + 2], 0xdd);
      float* to = out + 32 * l + 16 * s;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), ordered));
    }
  }
#elif defined(__AVX2__)
  const __m256i units = Nibbles::spread(reinterpret_cast<const int32_t*>(grid.unit(vector)));
  const __m256 unit = _mm256_max_ps(_mm256_castsi256_ps(units), _mm256_setzero_ps()), step = _mm256_set1_ps(65536.f);
  const auto whole = [&](int half, int v) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[half][v], Nibbles::spread(grid.base(half, vector))));
  };
  __m256 part[kNibbleSums];
#pragma GCC unroll 8
  for (int v = 0; v < kNibbleSums; ++v) {
    __m256 sum = whole(0, v);
    if constexpr (Halves == 2) sum = _mm256_fmadd_ps(sum, step, whole(1, v));
    part[v] = _mm256_mul_ps(sum, unit);
  }
#pragma GCC unroll 4
  for (int eight = 0; eight < 4; ++eight) {  // columns of both lanes
    const int v = eight / 2 + eight % 2 * 4;
    const __m256 a = _mm256_unpacklo_ps(part[v], part[v + 2]), b = _mm256_unpackhi_ps(part[v], part[v + 2]);
    const __m256 ordered[2] = {_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
#pragma GCC unroll 2
    for (int lane = 0; lane < 2; ++lane) {
      float* to = out + 32 * lane + 8 * eight;
      _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), ordered[lane]));
    }
  }
#else
  constexpr int kNumbers = 4 * Nibbles::kLanes;
  int32_t whole[Halves][kNibbleSums][kNumbers];
  for (int h = 0; h < Halves; ++h)
    for (int v = 0; v < kNibbleSums; ++v) Nibbles::store(whole[h][v], sums[h][v]);
  for (int v = 0; v < kNibbleSums; ++v)
    for (int i = 0; i < kNumbers; ++i) {
      float sum = 0.f;
      for (int h = 0; h < Halves; ++h) sum = sum * 65536.f + static_cast<float>(whole[h][v][i] - grid.base(h, vector)[i / 4]);
      out[nibble_column(v, i)] += sum * std::max(grid.unit(vector)[i / 4], 0.f);
    }
#endif
}

// What no grid holds: sums in double.
template <int Halves>
void add_odd(const NibbleGrid<Halves>& grid, const NibbleRows& rows, float* out) {
  for (int64_t g = 0; g < rows.width / 32; ++g) {
    if (!grid.odd(g)) continue;
    for (int64_t k = 0; k < 32; ++k) {
      double sum = 0;
      for (int j = 0; j < rows.count; ++j) {
        const uint8_t byte = rows.at[j][g * 16 + k % 16];
        const double scale = static_cast<double>(to_float(rows.scale[j][(32 * g) >> rows.shift]));
        sum += static_cast<double>(rows.value[j]) * scale * ((k < 16 ? byte & 15 : byte >> 4) - 8);
      }
      out[32 * g + k] += static_cast<float>(sum);
    }
  }
}

// Whole numbers that wait for further rows.
template <int Halves>
constexpr int64_t waiting_sums(int64_t width) { return Halves * up_to(width, kNibbleColumns); }

// Pairs of rows with one token, in the columns of one vector. `line`: they begin a cache line.
template <int Halves, class Load, class Fetch>
LAZY_INLINE void add_pairs(const uint8_t* const* at, const int32_t* words, int pairs, bool line, Load load, Fetch& fetch,
                           NibbleVector (*sums)[kNibbleSums]) {
  for (int pair = 0; pair < pairs; ++pair, at += 2, words += NibbleGrid<Halves>::kWords) {
    if (line) {
      fetch();
      fetch();
    }
    NibbleVector spread[Halves];
    for (int h = 0; h < Halves; ++h) spread[h] = Nibbles::spread(words + h * Nibbles::kLanes);
    add_nibbles<Halves>(load(at[0]), load(at[1]), spread, sums);
  }
}

// Rows 2 * begin to 2 * end with one token; their sums go to `out`, of whole vectors of columns, with the last of them.
// `fetch` is called for every cache line that is read.
template <int Halves, class Fetch>
void add_rows(const NibbleGrid<Halves>& grid, const NibbleRows& rows, int begin, int end, int32_t* waiting, float* out,
              Fetch& fetch) {
  constexpr int64_t kBytes = kNibbleColumns / 2;
  constexpr int64_t kNumbers = 4 * Nibbles::kLanes;  // of a vector
  for (int64_t vector = 0; vector * kNibbleColumns < rows.width; ++vector) {
    const int64_t start = vector * kBytes, bytes = std::min(kBytes, rows.width / 2 - start);
    NibbleVector sums[Halves][kNibbleSums];
    int32_t* mine = waiting + vector * kNumbers * kNibbleSums * Halves;
#pragma GCC unroll 16
    for (int v = 0; v < Halves * kNibbleSums; ++v)
      sums[v / kNibbleSums][v % kNibbleSums] = begin == 0 ? NibbleVector{} : Nibbles::load(mine + v * kNumbers);
    const auto whole = [&](const uint8_t* row) { return Nibbles::load(row + start); };
    const auto tail = [&](const uint8_t* row) {
      uint8_t piece[kBytes] = {};
      std::memcpy(piece, row + start, static_cast<size_t>(bytes));
      return Nibbles::load(piece);
    };
    const uint8_t* const* at = rows.at + 2 * begin;
    const int32_t* words = grid.words(vector, begin);
    if (bytes == kBytes) add_pairs<Halves>(at, words, end - begin, start % 64 == 0, whole, fetch, sums);
    else add_pairs<Halves>(at, words, end - begin, start % 64 == 0, tail, fetch, sums);
    if (end == grid.pairs()) {
      add_sums(grid, vector, sums, out + vector * kNibbleColumns);
      continue;
    }
#pragma GCC unroll 16
    for (int v = 0; v < Halves * kNibbleSums; ++v) Nibbles::store(mine + v * kNumbers, sums[v / kNibbleSums][v % kNibbleSums]);
  }
  if (end == grid.pairs() && grid.odd()) add_odd(grid, rows, out);
}

}  // namespace LAZY_ISA
}  // namespace lazy
