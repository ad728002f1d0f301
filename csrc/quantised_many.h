// Rows of int4 `down` for a tile of tokens: token by token, so that sums stay in registers while a segment's rows, which
// lie in the second-level cache, pass by.
#pragma once
#include "firing.h"
#include "quantised_down.h"
#include "quantised_lines.h"
#include "quantised_nibbles.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int64_t kNibbleShare = 1024;     // columns that one worker sums at a time, at most
constexpr int64_t kNibbleShareStep = 128;  // that shares are multiples of: the largest scale group, and a vector
static_assert(kNibbleShareStep % kNibbleColumns == 0);

// What fired in one segment, token by token.
class FiredByToken {
 public:
  void clear(int64_t tokens) {
    tokens_ = tokens;
    std::fill(count_, count_ + tokens, 0);
  }

  void add(int token, int neuron, float value) {
    const int i = count_[token]++;
    neuron_[token][i] = static_cast<uint8_t>(neuron);
    value_[token][i] = value;
  }

  // The rows of a token; `at` and `scale` name those of all neurons of the segment.
  NibbleRows rows(int64_t token, const uint8_t* const* at, const bf16* const* scale) {
    const int n = count_[token];
    for (int i = 0; i < n; ++i) {
      at_[i] = at[neuron_[token][i]];
      scale_[i] = scale[neuron_[token][i]];
    }
    if (n % 2) at_[n] = at_[n - 1];
    return {at_, scale_, value_[token], n, 0, 0};
  }

 private:
  static constexpr int64_t kNeurons = kSegment * kPanel;
  static_assert(kNeurons <= 256);
  int64_t tokens_ = 0;
  int count_[kMaxTile];
  uint8_t neuron_[kMaxTile][kNeurons];
  float value_[kMaxTile][kNeurons];
  const uint8_t* at_[kNeurons];
  const bf16* scale_[kNeurons];
};

// One share of the columns of a tile's output: as accumulate() of firing.h, for int4 rows.
template <class T>
class NibbleShare {
 public:
  NibbleShare(const QuantisedProblem& p, const Layout& l, int64_t tile, int64_t task, char* lists)
      : p_(p),
        l_(l),
        lists_(lists),
        t0_(tile * l.tile),
        count_(std::min(l.tile, p.tokens - t0_)),
        c0_(task * l.columns),
        width_(std::min(l.columns, p.d_out - c0_)),
        stride_(l.columns + 16) {}

  void work() {
    auto& total = own<NibbleShare, std::vector<float>>();
    auto& fired = own<NibbleShare, FiredByToken>();
    auto& grid = own<NibbleShare, NibbleGrid<kHalves<T>>>();
    auto& lines = own<NibbleShare, Lines>();
    total.assign(static_cast<size_t>(count_ * stride_), 0.f);
    lines.clear();
    for (int64_t begin = 0; begin < l_.panels; begin += kSegment) {
      if (begin == 0) want(0, lines);
      lines.fetch(kBeginning);
      want(begin + kSegment, lines);
      gather(begin, fired);
      for (int64_t t = 0; t < count_; ++t) {
        NibbleRows rows = fired.rows(t, at_, scale_);
        if (rows.count == 0) continue;
        rows.width = width_;
        rows.shift = __builtin_ctzll(p_.group);
        grid.make(rows, lines);
        add_rows(grid, rows, 0, grid.pairs(), nullptr, total.data() + t * stride_, lines);
      }
    }
    finish(total.data());
  }

 private:
  static constexpr int64_t kBeginning = 8192;  // bytes

  int64_t end_of(int64_t begin) const { return std::min(begin + kSegment, l_.panels); }

  // Rows of a segment that some token wants.
  void want(int64_t begin, Lines& lines) const {
    for (int64_t panel = begin; panel < end_of(begin); ++panel) {
      const Fired* f = l_.fired(lists_, panel);
      for (int32_t e = 0; e < f->neurons; ++e) {
        const int64_t neuron = panel * kPanel + f->index[e];
        lines.want(down_row(p_, neuron, c0_), width_ / 2);
        lines.want(down_scale(p_, neuron, c0_), width_ / p_.group * 2);
      }
    }
  }

  void gather(int64_t begin, FiredByToken& fired) {
    fired.clear(count_);
    for (int64_t panel = begin; panel < end_of(begin); ++panel) {
      Fired* f = l_.fired(lists_, panel);
      const float* value = values_of(f);
      const uint8_t* token = tokens_of(f, l_.tile);
      for (int32_t e = 0; e < f->neurons; ++e) {
        const int64_t neuron = panel * kPanel + f->index[e], place = neuron - begin * kPanel;
        at_[place] = down_row(p_, neuron, c0_);
        scale_[place] = down_scale(p_, neuron, c0_);
        for (int a = 0; a < f->count[e]; ++a) fired.add(*token++, static_cast<int>(place), *value++);
      }
    }
  }

  void finish(const float* total) const {
    T* y = static_cast<T*>(p_.y);
    const T* bias = static_cast<const T*>(p_.down_bias);
    for (int64_t t = 0; t < count_; ++t) {
      T* out = y + (t0_ + t) * p_.d_out + c0_;
      const float* in = total + t * stride_;
      for (int64_t k = 0; k < width_; ++k) out[k] = narrow(bias ? in[k] + to_float(bias[c0_ + k]) : in[k], T{});
    }
  }

  const QuantisedProblem& p_;
  const Layout& l_;
  char* lists_;
  int64_t t0_, count_, c0_, width_, stride_;
  const uint8_t* at_[kSegment * kPanel];
  const bf16* scale_[kSegment * kPanel];
};

}  // namespace LAZY_ISA
}  // namespace lazy
