// What int4 rows of `down` add to the output of a token: sums of whole numbers, so that no order of neurons, no neuron
// that is left out and no ISA level changes a bit.
//
// Within a segment of neurons and a group of 32 columns the products of hidden activations and scales are kept on a grid of
// 31 bits, whose step is a power of two that the largest of them decides; float32 holds no more of them than that.
#pragma once
#include <algorithm>
#include <vector>

#include "nibbles.h"
#include "quantised.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

// Rows of `down` of one segment, from column c0 on, and what a token multiplies them with.
struct NibbleRows {
  const uint8_t* const* at;      // of column c0
  const bf16* const* scale;      // of column c0
  const float* value;
  int count;
  int64_t width;                 // columns
  int shift;                     // a scale group has 2 ^ shift columns
};

// Rows on the grid of one token: pairs of 16-bit numbers, high and low halves.
class NibbleGrid {
 public:
  void make(const NibbleRows& rows) {
    const int shift = rows.shift;
    groups_ = rows.width / 32;
    pairs_ = (rows.count + 1) / 2;
    const int64_t padded = up_to(groups_, 16);
    words_.resize(static_cast<size_t>(padded * pairs_ * 2));
    for (auto& base : base_) base.resize(static_cast<size_t>(padded));
    unit_.resize(static_cast<size_t>(padded));
    odd_ = false;
    for (int64_t g = 0; g < groups_; g += 16) {
      const int n = static_cast<int>(std::min<int64_t>(16, groups_ - g));
      if (shift == 5 && n == 16) make_groups<5, 16>(rows, g, n);
      else if (shift == 5) make_groups<5, 0>(rows, g, n);
      else if (shift == 6) make_groups<6, 0>(rows, g, n);
      else make_groups<7, 0>(rows, g, n);
    }
  }

  int pairs() const { return pairs_; }
  bool odd() const { return odd_; }
  bool odd(int64_t group) const { return unit_[static_cast<size_t>(group)] < 0; }

  // High numbers of a pair in the groups of a vector, then low ones.
  LAZY_INLINE const int32_t* words(int64_t vector, int pair) const {
    return words_.data() + (vector * pairs_ + pair) * 2 * Nibbles::kLanes;
  }
  LAZY_INLINE const int32_t* base(int half, int64_t vector) const { return base_[half].data() + vector * Nibbles::kLanes; }
  LAZY_INLINE const float* unit(int64_t vector) const { return unit_.data() + vector * Nibbles::kLanes; }

 private:
  static constexpr int32_t kMinusOne = -0x40800000;  // the bits of -1.f

  // Scales of n <= 16 groups of 32 columns, from group g on.
  template <int Shift, int All>
  LAZY_INLINE static v16f scales(const bf16* scale, int64_t g, int n) {
    if constexpr (All == 16) return load16(scale + g);
    constexpr int kEach = 1 << (Shift - 5);
    bf16 some[16] = {};
    std::memcpy(some, scale + g / kEach, sizeof(bf16) * static_cast<size_t>(n / kEach));
    v16f out = {};
    for (int i = 0; i < n; ++i) out[i] = to_float(some[i / kEach]);
    return out;
  }

  template <int Shift, int All>
  void make_groups(const NibbleRows& rows, int64_t g, int n) {
    v16i most = {};
    for (int j = 0; j < rows.count; ++j) {
      const v16f a = scales<Shift, All>(rows.scale[j], g, n) * rows.value[j];
      const v16i size = load_as<v16i>(&a) & 0x7fffffff;
      most = size > most ? size : most;
    }
    const v16i power = most >> 23, fits = (power >= 30) & (power < 255);
    const v16i odd = ~fits & (most != 0);  // else there is nothing
    const v16i factor = ((283 - power) << 23) & fits, unit = (((power - 29) << 23) & fits) | (odd & kMinusOne);
    std::memcpy(unit_.data() + g, &unit, 64);
    for (int i = 0; i < 16; ++i) odd_ |= odd[i] != 0;
    fill<Shift, All>(rows, g, n, load_as<v16f>(&factor));
  }

  template <int Shift, int All>
  void fill(const NibbleRows& rows, int64_t g, int n, v16f factor) {
    constexpr int kLanes = Nibbles::kLanes;
    v16i total[2] = {};
    for (int pair = 0; pair < pairs_; ++pair) {
      v16i high[2], low[2];
      for (int k = 0; k < 2; ++k) {
        const int j = std::min(2 * pair + k, rows.count - 1);
        const float value = 2 * pair + k < rows.count ? rows.value[j] : 0.f;
        // a factor of 0 leaves nothing of what no grid holds
        const v16f a = scales<Shift, All>(rows.scale[j], g, n) * value;
        const v16i whole = __builtin_convertvector(factor == 0.f ? v16f{} : a * factor, v16i);
        high[k] = (whole + 0x8000) >> 16;
        low[k] = whole - (high[k] << 16);
        total[0] += high[k];
        total[1] += low[k];
      }
      const v16i words[2] = {(high[0] & 0xffff) | (high[1] << 16), (low[0] & 0xffff) | (low[1] << 16)};
      for (int lane = 0; lane < 16; lane += kLanes) {
        int32_t* to = words_.data() + ((g + lane) / kLanes * pairs_ + pair) * 2 * kLanes;
        std::memcpy(to, reinterpret_cast<const int32_t*>(&words[0]) + lane, 4 * kLanes);
        std::memcpy(to + kLanes, reinterpret_cast<const int32_t*>(&words[1]) + lane, 4 * kLanes);
      }
    }
    for (int half = 0; half < 2; ++half) {
      total[half] *= 8;  // a nibble is its number plus 8
      std::memcpy(base_[half].data() + g, &total[half], 64);
    }
  }

  int64_t groups_ = 0;
  int pairs_ = 0;
  bool odd_ = false;
  std::vector<int32_t> words_, base_[2];
  std::vector<float> unit_;  // of a step; negative where no grid holds the numbers
};

// out[column] += the sums, in float32.
LAZY_INLINE void add_sums(const NibbleGrid& grid, int64_t vector, const NibbleVector (*sums)[kNibbleSums], float* out) {
#if defined(__AVX512F__)
  const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const auto spread = [&](const void* p) {
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(static_cast<const float*>(p))), lane);
  };
  const __m512i high = _mm512_castps_si512(spread(grid.base(0, vector))), low = _mm512_castps_si512(spread(grid.base(1, vector)));
  const __m512 unit = _mm512_max_ps(spread(grid.unit(vector)), _mm512_setzero_ps()), step = _mm512_set1_ps(65536.f);
  __m512 part[kNibbleSums];
#pragma GCC unroll 8
  for (int v = 0; v < kNibbleSums; ++v) {
    const __m512 h = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[0][v], high)), l = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[1][v], low));
    part[v] = _mm512_mul_ps(_mm512_fmadd_ps(h, step, l), unit);
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
#else
  constexpr int kNumbers = 4 * Nibbles::kLanes;
  int32_t whole[2][kNibbleSums][kNumbers];
  for (int half = 0; half < 2; ++half)
    for (int v = 0; v < kNibbleSums; ++v) Nibbles::store(whole[half][v], sums[half][v]);
  for (int v = 0; v < kNibbleSums; ++v)
    for (int i = 0; i < kNumbers; ++i) {
      const int32_t high = whole[0][v][i] - grid.base(0, vector)[i / 4], low = whole[1][v][i] - grid.base(1, vector)[i / 4];
      const float unit = std::max(grid.unit(vector)[i / 4], 0.f);
      out[nibble_column(v, i)] += (static_cast<float>(high) * 65536.f + static_cast<float>(low)) * unit;
    }
#endif
}

// What no grid holds: sums in double.
inline void add_odd(const NibbleGrid& grid, const NibbleRows& rows, float* out) {
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
LAZY_INLINE int64_t waiting_sums(int64_t width) { return 2 * up_to(width, kNibbleColumns); }

// Rows 2 * begin to 2 * end with one token; their sums go to `out`, of whole vectors of columns, with the last of them.
// `fetch` is called for every cache line that is read.
template <class Fetch>
void add_rows(const NibbleGrid& grid, const NibbleRows& rows, int begin, int end, int32_t* waiting, float* out, Fetch& fetch) {
  constexpr int64_t kBytes = kNibbleColumns / 2;
  constexpr int64_t kSums = 2 * kNibbleSums * 4 * Nibbles::kLanes;
  for (int64_t vector = 0; vector * kNibbleColumns < rows.width; ++vector) {
    const int64_t bytes = std::min(kBytes, rows.width / 2 - vector * kBytes);
    NibbleVector sums[2][kNibbleSums];
    int32_t* mine = waiting + vector * kSums;
#pragma GCC unroll 16
    for (int v = 0; v < 2 * kNibbleSums; ++v)
      sums[v / kNibbleSums][v % kNibbleSums] = begin == 0 ? NibbleVector{} : Nibbles::load(mine + v * 4 * Nibbles::kLanes);
    for (int pair = begin; pair < end; ++pair) {
      const uint8_t* row[2] = {rows.at[2 * pair] + vector * kBytes,
                               rows.at[std::min(2 * pair + 1, rows.count - 1)] + vector * kBytes};
      NibbleVector both[2];
      if (bytes == kBytes) {
        both[0] = Nibbles::load(row[0]);
        both[1] = Nibbles::load(row[1]);
      } else {
        uint8_t piece[2][kBytes] = {};
        for (int k = 0; k < 2; ++k) {
          std::memcpy(piece[k], row[k], static_cast<size_t>(bytes));
          both[k] = Nibbles::load(piece[k]);
        }
      }
      if (vector * kBytes % 64 == 0) {
        fetch();
        fetch();
      }
      const int32_t* words = grid.words(vector, pair);
      add_nibbles(both[0], both[1], Nibbles::spread(words), Nibbles::spread(words + Nibbles::kLanes), sums);
    }
    if (end == grid.pairs()) {
      add_sums(grid, vector, sums, out + vector * kNibbleColumns);
      continue;
    }
#pragma GCC unroll 16
    for (int v = 0; v < 2 * kNibbleSums; ++v) Nibbles::store(mine + v * 4 * Nibbles::kLanes, sums[v / kNibbleSums][v % kNibbleSums]);
  }
  if (end == grid.pairs() && grid.odd()) add_odd(grid, rows, out);
}

}  // namespace LAZY_ISA
}  // namespace lazy
