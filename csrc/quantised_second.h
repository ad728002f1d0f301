// The second layer of a quantised block on few tokens: rows of `down` that neurons want, and what is done with them.
#pragma once
#include "quantised_down.h"
#include "quantised_lines.h"
#include "quantised_nibbles.h"
#include "wanted.h"

namespace lazy {
namespace LAZY_ISA {

constexpr int kStreamTokens = 4;  // up to which bytes are what a block costs

// int8: the rows of one panel are added before those of the next.
class ByteSecond {
 public:
  using Row = PlainRow<int8_t>;

  void clear() { wanted_.clear(); }
  bool empty() const { return wanted_.empty(); }
  bool waits(bool) const { return false; }

  // A neuron that fired for n tokens; its values are folded.
  void keep(const QuantisedProblem& p, int64_t neuron, const float* values, const uint8_t* tokens, int n) {
    const size_t i = wanted_.size();
    std::copy(values, values + n, values_[i]);
    std::copy(tokens, tokens + n, tokens_[i]);
    wanted_.push_back({{reinterpret_cast<const int8_t*>(down_row(p, neuron, 0))}, values_[i], tokens_[i], n});
  }

  void want(const QuantisedProblem& p, Lines& lines) const {
    for (const Wanted<Row>& entry : wanted_) lines.want(entry.row.at, p.d_out);
  }

  void add(const QuantisedProblem& p, float* sums, int64_t stride, Lines& lines) {
    Accumulation<Row>(sums, stride, p.d_out, p.tokens).add_fetched(wanted_, lines);
    wanted_.clear();
  }

 private:
  std::vector<Wanted<Row>> wanted_;
  float values_[kPanel][kStreamTokens];
  uint8_t tokens_[kPanel][kStreamTokens];
};

// int4: the rows of a segment wait for each other, because they share a grid.
template <int Halves>
class NibbleSecond {
 public:
  void clear() {
    at_.clear();
    scale_.clear();
    for (auto& value : value_) value.clear();
  }

  bool empty() const { return at_.empty(); }
  bool waits(bool same_segment) const { return same_segment; }

  void keep(const QuantisedProblem& p, int64_t neuron, const float* values, const uint8_t* tokens, int n) {
    fetch_down_scale(p, neuron, 0, p.d_out);
    at_.push_back(down_row(p, neuron, 0));
    scale_.push_back(down_scale(p, neuron, 0));
    for (int64_t t = 0; t < p.tokens; ++t) value_[t].push_back(0.f);
    for (int k = 0; k < n; ++k) value_[tokens[k]].back() = values[k];
  }

  void want(const QuantisedProblem& p, Lines& lines) const {
    for (const uint8_t* row : at_) lines.want(row, p.d_out / 2);
  }

  void add(const QuantisedProblem& p, float* sums, int64_t stride, Lines& lines) {
    NibbleRows rows[kStreamTokens];
    Lines none;  // the first token fetches for all
    const int count = static_cast<int>(at_.size());
    if (count % 2) at_.push_back(at_.back());
    for (int64_t t = 0; t < p.tokens; ++t) {
      rows[t] = {at_.data(), scale_.data(), value_[t].data(), count, p.d_out, __builtin_ctzll(p.group)};
      grid_[t].make(rows[t], t == 0 ? lines : none);
    }
    waiting_.resize(static_cast<size_t>(p.tokens * waiting_sums<Halves>(p.d_out)));
    const int pairs = grid_[0].pairs(), blocks = (pairs + kBlock - 1) / kBlock;
    for (int b = 0; b < blocks; ++b)
      for (int64_t t = 0; t < p.tokens; ++t)
        add_rows(grid_[t], rows[t], pairs * b / blocks, pairs * (b + 1) / blocks, waiting_.data() + t * waiting_sums<Halves>(p.d_out),
                 sums + t * stride, t == 0 ? lines : none);
    clear();
  }

 private:
  static constexpr int kBlock = 8;  // pairs of rows that come from memory while sums of the block before are made

  std::vector<const uint8_t*> at_;
  std::vector<const bf16*> scale_;
  std::vector<float> value_[kStreamTokens];
  NibbleGrid<Halves> grid_[kStreamTokens];
  std::vector<int32_t> waiting_;
};

}  // namespace LAZY_ISA
}  // namespace lazy
