// Both layers of a block in int8 where no instruction adds up products of bytes.
#pragma once
#include "panels_fired.h"

namespace lazy {
namespace LAZY_ISA {

#if !LAZY_VNNI

// What products take of a token on its grid of 8 bits.
using Number = std::conditional_t<LAZY_WORDS, int16_t, float>;

class FirstLayer {
 public:
  FirstLayer(const Problem& p, Token* tokens, int8_t* numbers) : p_(p), tokens_(tokens), numbers_(numbers) {}

  static int64_t bytes_of(const Problem& p) { return sizeof(Number) * p.padded_in; }  // of a token's numbers

  void prepare(int64_t t) const {
    thread_local Scratch memory;
    int8_t* const plane = reinterpret_cast<int8_t*>(memory.at_least(static_cast<size_t>(p_.padded_in)));
    tokens_[t] = measure(row(t), p_.d_in, p_.padded_in, 1, plane, false);
    Number* const out = reinterpret_cast<Number*>(numbers(t));
    const Number step = LAZY_WORDS ? 1 : static_cast<Number>(tokens_[t].step);  // which products of words leave to the end
    for (int64_t k = 0; k < p_.padded_in; ++k) out[k] = static_cast<Number>(plane[k] * step);
  }

  // What of the panels [begin, end) may fire for `count` tokens.
  void look(int64_t t0, int64_t count, int64_t begin, int64_t end, List* lists) const {
    for (int64_t panel = begin; panel < end; ++panel)
      for (int64_t t = 0; t < count; t += kMaxTile) together(panel, t0 + t, std::min<int64_t>(kMaxTile, count - t), lists + t);
  }

 private:
  const float* row(int64_t t) const { return static_cast<const float*>(p_.x) + t * p_.d_in; }
  int8_t* numbers(int64_t t) const { return numbers_ + t * bytes_of(p_); }

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
  explicit SecondLayer(const Problem& p) : down_(p) {}

  // Hidden activations, of magnitudes up to `top`, brought to a grid of 8 bits.
  void sum_on_grid(const List& fired, float top, float* y) const {
    const float inverse = top > 0.f ? 127.f / top : 0.f;
    const v16f magic = splat(12582912.f);  // adding 1.5 * 2^23 rounds to the nearest integer
    for (int64_t k = 0; k < fired.count; k += 16) store(fired.z + k, (load16(fired.z + k) * inverse + magic) - magic);
    down_.sum(fired, top / 127.f, y);
  }

  void sum(const List& fired, float* y) const { down_.sum(fired, 1.f, y); }

 private:
  const Down down_;
};

#endif

}  // namespace LAZY_ISA
}  // namespace lazy
