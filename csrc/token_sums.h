// The second pass of many tokens: what fired is brought into the order of tokens, so that a token's sums stay in registers
// while its rows of `down` pass by. Sums run over the same neurons in the same order as accumulate() has them.
#pragma once
#include "firing.h"

namespace lazy {
namespace LAZY_ISA {

// The pairs of a tile that fired, token by token; the neurons of each ascend.
class ByToken {
 public:
  struct Pair {
    int32_t neuron;
    float value;
  };

  static constexpr int kMostTokens = 8;  // that a neuron fires for, as a mean
  static constexpr int kAhead = 12;  // pairs by which rows are fetched before they are added

  // False where neurons fire for so many tokens that a row is better read once for all of them.
  bool gather(const Layout& l, char* lists, int64_t tokens) {
    int32_t next[kMaxTile] = {}, pairs = 0, neurons = 0;
    for (int64_t panel = 0; panel < l.panels; ++panel) {
      Fired* f = l.fired(lists, panel);
      const uint8_t* token = tokens_of(f, l.tile);
      for (int32_t p = 0; p < f->pairs; ++p) ++next[token[p]];
      neurons += f->neurons;
      pairs += f->pairs;
    }
    if (pairs > kMostTokens * neurons) return false;
    pairs = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      begin_[t] = pairs;
      pairs += next[t];
      next[t] = begin_[t];
    }
    begin_[tokens] = pairs;
    if (pairs_.size() < static_cast<size_t>(pairs + kAhead)) pairs_.resize(static_cast<size_t>(pairs + kAhead));
    for (int k = 0; k < kAhead; ++k) pairs_[static_cast<size_t>(pairs + k)] = {0, 0.f};
    for (int64_t panel = 0; panel < l.panels; ++panel) {
      Fired* f = l.fired(lists, panel);
      const float* value = values_of(f);
      const uint8_t *token = tokens_of(f, l.tile), *neuron = neurons_of(f, l.tile);
      const int32_t first = static_cast<int32_t>(panel * kPanel);
      for (int32_t p = 0; p < f->pairs; ++p) pairs_[static_cast<size_t>(next[token[p]]++)] = {first + neuron[p], value[p]};
    }
    return true;
  }

  const Pair* begin(int64_t token) const { return pairs_.data() + begin_[token]; }
  const Pair* end(int64_t token) const { return pairs_.data() + begin_[token + 1]; }

 private:
  int32_t begin_[kMaxTile + 1];
  std::vector<Pair> pairs_;
};

// Columns [c, c + 16 U) of a token's output.
template <int U, class T>
LAZY_INLINE void sum_rows(const ByToken::Pair* pair, const ByToken::Pair* end, const T* down, int64_t stride,
                          const T* bias, T* y) {
  constexpr int kVectors = 4 / static_cast<int>(sizeof(T));  // of a cache line
  v16f sum[U] = {};
  for (; pair != end; ++pair) {
    const T *row = down + pair->neuron * stride, *later = down + pair[ByToken::kAhead].neuron * stride;
    const v16f v = splat(pair->value);
#pragma GCC unroll 8
    for (int u = 0; u < U; u += kVectors) __builtin_prefetch(later + 16 * u);
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) sum[u] += v * load16(row + 16 * u);
  }
  alignas(64) float wide[16 * U];
  #pragma GCC unroll 8
  for (int u = 0; u < U; ++u) store(wide + 16 * u, sum[u]);
  for (int k = 0; k < 16 * U; ++k) y[k] = narrow(bias ? wide[k] + to_float(bias[k]) : wide[k], T{});
}

// The output of a tile of tokens, as accumulate() writes it; `tokens` of them.
template <class T>
void sum_tokens(const ByToken& fired, const Problem& p, int64_t t0, int64_t tokens) {
  const T *down = static_cast<const T*>(p.down_rows), *bias = static_cast<const T*>(p.down_bias);
  T* y = static_cast<T*>(p.y) + t0 * p.d_out;
  int64_t c = 0;
  const auto pieces = [&]<int U>(std::integral_constant<int, U>) {
    for (; c + 16 * U <= p.d_out; c += 16 * U)  // whose rows stay in the second-level cache
      for (int64_t t = 0; t < tokens; ++t)
        sum_rows<U>(fired.begin(t), fired.end(t), down + c, p.d_out, bias ? bias + c : nullptr, y + t * p.d_out + c);
  };
#if defined(__AVX512F__)  // else 128 sums take all registers
  pieces(std::integral_constant<int, 8>{});
#endif
  pieces(std::integral_constant<int, 4>{});
  pieces(std::integral_constant<int, 2>{});
  pieces(std::integral_constant<int, 1>{});
  for (; c < p.d_out; ++c)
    for (int64_t t = 0; t < tokens; ++t) {
      float sum = 0.f;
      for (const ByToken::Pair* k = fired.begin(t); k != fired.end(t); ++k) sum += k->value * to_float(down[k->neuron * p.d_out + c]);
      y[t * p.d_out + c] = narrow(bias ? sum + to_float(bias[c]) : sum, T{});
    }
}

}  // namespace LAZY_ISA
}  // namespace lazy
