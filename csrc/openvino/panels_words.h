// Both layers of a block in int8 where no instruction adds up products of bytes.
#pragma once
#include "panels_fired.h"

namespace lazy {
namespace LAZY_ISA {

#if !LAZY_VNNI

// What products take of a token on its grid of 16 bits, which cost words and floats no more than 8.
using Number = std::conditional_t<LAZY_WORDS, int16_t, float>;

#if LAZY_WORDS
LAZY_INLINE void store_words(int16_t* out, v16i v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(v)));
#else
  const __m256i pairs = _mm256_packs_epi32(reinterpret_cast<__m256i>(v.low), reinterpret_cast<__m256i>(v.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(pairs, 0xd8));
#endif
}
#endif

class FirstLayer {
 public:
  FirstLayer(const Problem& p, Token* tokens, int8_t* numbers) : p_(p), tokens_(tokens), numbers_(numbers) {}

  static int64_t bytes_of(const Problem& p) { return sizeof(Number) * p.padded_in; }  // of a token's numbers

  // As measure() does it with two planes, without what only a certificate needs.
  void prepare(int64_t t) const {
    const float* x = row(t);
    const int64_t n = p_.d_in;
    Number* const out = reinterpret_cast<Number*>(numbers(t));
    bool finite = false;
    const float largest = largest_magnitude(x, n, &finite);
    if (!finite || !(largest >= kLeast && largest <= kMost)) {
      std::memset(out, 0, static_cast<size_t>(bytes_of(p_)));
      tokens_[t] = measure(x, n, p_.padded_in, 0, numbers(t));
      return;
    }
    const float factor = 1.f / power_near(largest), reached = largest * factor, step = reached / kSteps16;
    const float inverse = kSteps16 / reached, unit = LAZY_WORDS ? 1.f : step / factor;  // which products of words leave to the end
    const v16f magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
    const auto grid = [&](v16f v) { return ((v * factor * inverse + magic) - magic) * unit; };
    int64_t k = 0;
    for (; k + 16 <= n; k += 16) put(out + k, grid(load16(x + k)), 16);
    if (k < n) {
      v16f tail = {};
      std::memset(out + k, 0, sizeof(Number) * static_cast<size_t>(p_.padded_in - k));
      std::memcpy(&tail, x + k, sizeof(float) * static_cast<size_t>(n - k));
      put(out + k, grid(tail), n - k);
    }
    Token found = {};
    found.step = step / factor;
    found.unscale = 1.f;
    tokens_[t] = found;
  }

  // What of the panels [begin, end) may fire for `count` tokens.
  void look(int64_t t0, int64_t count, int64_t begin, int64_t end, List* lists) const {
    for (int64_t panel = begin; panel < end; ++panel)
      for (int64_t t = 0; t < count; t += kMaxTile) together(panel, t0 + t, std::min<int64_t>(kMaxTile, count - t), lists + t);
  }

 private:
  static constexpr float kSteps16 = 32512.f;  // of the grid to each side, as planes have them

  const float* row(int64_t t) const { return static_cast<const float*>(p_.x) + t * p_.d_in; }
  int8_t* numbers(int64_t t) const { return numbers_ + t * bytes_of(p_); }

  static LAZY_INLINE void put(Number* out, v16f v, int64_t count) {
#if LAZY_WORDS
    int16_t words[16];
    store_words(words, convert<v16i>(v));
    std::memcpy(out, words, sizeof(Number) * static_cast<size_t>(count));
#else
    std::memcpy(out, &v, sizeof(Number) * static_cast<size_t>(count));
#endif
  }

  void together(int64_t panel, int64_t t0, int64_t count, List* lists) const {
    Ahead nothing;
    alignas(64) float z[kMaxTile * kPanel];
    const int8_t* planes[kMaxTile];
    const float* wide[kMaxTile];
    for (int64_t t = 0; t < count; ++t) {
      planes[t] = numbers(t0 + t);
      wide[t] = reinterpret_cast<const float*>(planes[t]);
    }
    const uint8_t* const bytes = p_.sketch + panel * kPanel * p_.padded_in;
    sketch_panel(p_, bytes, tokens_ + t0, planes, wide, static_cast<int>(count), z, nothing, 0);
    for (int64_t t = 0; t < count; ++t) {
      const Token& token = tokens_[t0 + t];
      if (token.odd) enter_odd(p_, panel, row(t0 + t), token, lists[t]);
      else enter(p_, panel * kPanel, token.unscale, z + t * kPanel, lists[t]);
    }
  }

  const Problem& p_;
  Token* tokens_;
  int8_t* numbers_;
};

class SecondLayer {
 public:
  explicit SecondLayer(const Problem& p) : p_(p), down_(p), stride_(down_.stride()) {}

  // Hidden activations, of magnitudes up to `top`: as words on the finest of three grids whose sums stay whole, else as they are.
  void sum_on_grid(const List& fired, float top, float* y) const {
#if LAZY_WORDS
    const int64_t most = INT32_MAX / (255 * std::max<int64_t>(fired.count, 1));
    if (const int64_t steps = most >= 16384 ? 16384 : most >= 8192 ? 8192 : most >= 4096 ? 4096 : 0; steps && top > 0.f)
      return sum_of_words(fired, top, static_cast<float>(steps), y);
#endif
    down_.sum(fired, 1.f, y);
  }

  void sum(const List& fired, float* y) const { down_.sum(fired, 1.f, y); }

 private:
#if LAZY_WORDS
  // Two rows of `down` at a time, their numbers side by side.
  void sum_of_words(const List& fired, float top, float steps, float* y) const {
    const v16f magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
    const float inverse = steps / top;
    auto* const words = reinterpret_cast<int16_t*>(fired.z);  // each vector's words take the place of its values
    v16i total = {};
    for (int64_t k = 0; k < fired.count; k += 16) {
      const v16i whole = convert<v16i>((load16(fired.z + k) * inverse + magic) - magic);
      total += whole;
      store_words(words + k, whole);
    }
    int32_t offset = 0;  // weights are q + 128
    for (int lane = 0; lane < 16; ++lane) offset += 128 * total[lane];
    for (int64_t c = 0; c < stride_; c += 64) columns(fired, words, c, offset, top / steps, y);
  }

  void columns(const List& fired, const int16_t* words, int64_t c0, int32_t offset, float step, float* y) const {
    constexpr int64_t kAhead = 8;  // rows
    const uint8_t* const base = static_cast<const uint8_t*>(p_.down_rows) + c0;
    const auto row = [&](int64_t k) { return base + fired.neuron[k] * stride_; };
    const int64_t pairs = (fired.count + 1) / 2, last = std::max<int64_t>(fired.count - 1, 0);
    __m256i sum[8];
    unrolled<8>([&](auto i) LAZY_LAMBDA { sum[i] = _mm256_setzero_si256(); });
    for (int64_t k = 0; k < pairs; ++k) {
      __builtin_prefetch(row(std::min(2 * k + kAhead, last)));
      __builtin_prefetch(row(std::min(2 * k + kAhead + 1, last)));
      const uint8_t *a = row(2 * k), *b = row(2 * k + 1);
      const __m256i h = _mm256_set1_epi32(load_as<int32_t>(words + 2 * k));
      unrolled<4>([&](auto i) LAZY_LAMBDA {
        const __m256i wa = widened(a + 16 * i), wb = widened(b + 16 * i);
        sum[2 * i] = _mm256_add_epi32(sum[2 * i], _mm256_madd_epi16(_mm256_unpacklo_epi16(wa, wb), h));
        sum[2 * i + 1] = _mm256_add_epi32(sum[2 * i + 1], _mm256_madd_epi16(_mm256_unpackhi_epi16(wa, wb), h));
      });
    }
    alignas(32) int32_t whole[64];  // of 16 columns the first sum has 0 to 3 and 8 to 11, the second the others
    unrolled<4>([&](auto i) LAZY_LAMBDA {
      const __m256i low = _mm256_permute2x128_si256(sum[2 * i], sum[2 * i + 1], 0x20);
      const __m256i high = _mm256_permute2x128_si256(sum[2 * i], sum[2 * i + 1], 0x31);
      _mm256_store_si256(reinterpret_cast<__m256i*>(whole + 16 * i), low);
      _mm256_store_si256(reinterpret_cast<__m256i*>(whole + 16 * i + 8), high);
    });
    const float* const bias = static_cast<const float*>(p_.down_bias);
    const int64_t end = std::min(c0 + 64, p_.d_out);
    for (int64_t c = c0; c < end; ++c) y[c] = static_cast<float>(whole[c - c0] - offset) * step + (bias ? bias[c] : 0.f);
  }
#endif

  [[maybe_unused]] const Problem& p_;
  const Down down_;
  [[maybe_unused]] const int64_t stride_;
};

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
