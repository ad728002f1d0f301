// A quantised block on few tokens: bytes from memory are what it costs.
//
// A worker walks its panels once; there is no second pass. After the first layer's rows of a panel it reads the rows of
// `down` that the panel before the last one wants, then the rows of `up` that the last one opened: in this order all of
// them come from memory, whichever is multiplied meanwhile.
#pragma once
#include "quantised_first.h"

namespace lazy {
namespace LAZY_ISA {

template <class T, class Second>
class FewTokens {
 public:
  FewTokens(const QuantisedProblem& p, int threads, char* scratch)
      : p_(p),
        panels_((p.d_hidden + kPanel - 1) / kPanel),
        segments_((panels_ + kSegment - 1) / kSegment),
        stride_(sums_stride(p)),
        threads_(threads),
        tokens_(p, scratch),
        sums_(reinterpret_cast<float*>(scratch)),
        first_(segments_, threads) {}

  static size_t scratch_bytes(const QuantisedProblem& p, int) {
    const int64_t panels = (p.d_hidden + kPanel - 1) / kPanel, segments = (panels + kSegment - 1) / kSegment;
    return GridTokens<T>::scratch_bytes(p) + segments * p.tokens * sums_stride(p) * sizeof(float) + 256;
  }

  void prepare_inline() { tokens_.prepare_inline(); }

  void work() {
    tokens_.prepare_together();
    Ranges::Seat seat = first_.seat();
    int64_t mine = 0, segment = first_.take(seat);
    if (segment >= 0) {
      Way& way = own<FewTokens, Way>();
      way.clear(p_);
      want_panel(p_, p_.first, segment * kSegment, way.lines);
      for (; segment >= 0; segment = first_.take(seat), ++mine) {
        float* sums = sums_ + segment * p_.tokens * stride_;
        std::memset(sums, 0, static_cast<size_t>(p_.tokens * stride_) * sizeof(float));
        const int64_t end = std::min((segment + 1) * kSegment, panels_);
        for (int64_t panel = segment * kSegment; panel < end; ++panel) step(way, panel, sums);
      }
      finish(way);
      hits_.fetch_add(way.hits, std::memory_order_relaxed);
    }
    done_.finished(mine);
    done_.wait(segments_);
    second_.share(2 * threads_, [&](int64_t task) { total(task); });
  }

  void counts(int64_t* out) const { out[0] = out[1] = hits_.load(); }

 private:
  // Whole vectors of columns; a power of two would share cache sets.
  static int64_t sums_stride(const QuantisedProblem& p) { return up_to(p.d_out, kNibbleColumns) + 16; }

  // What a worker has under way.
  struct Way {
    Open open[2];
    Lines lines;
    Second second;
    std::vector<float> decoded;
    int64_t steps, hits;
    int64_t opened;        // panel whose values are still to be made, or -1
    float* opened_sums;
    float* wanted_sums;

    void clear(const QuantisedProblem& p) {
      lines.clear();
      second.clear();
      decoded.resize(static_cast<size_t>(p.d_in));
      steps = hits = 0;
      opened = -1;
      opened_sums = wanted_sums = nullptr;
    }
  };

  void step(Way& w, int64_t panel, float* sums) {
    const GridToken* x[kStreamTokens];
    const int count = all_tokens(x);
    const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p_.d_hidden - first);
    alignas(64) float z[kPanel * kGridTile];
    w.lines.resume(n * p_.first.stride, kStreamLead);
    want_opened(w);
    want_panel(p_, p_.first, panel + 1, w.lines);
    panel_dots(p_, p_.first, first, n, x, count, w.decoded.data(), z, w.lines);
    Open& now = w.open[w.steps & 1];
    decide<T>(p_, first, n, x, count, z, now);
    advance(w);
    for (uint64_t left = now.any; left; left &= left - 1) {
      const int64_t neuron = first + __builtin_ctzll(left);
      if (p_.bits == 8) fetch_down_scale(p_, neuron, 0, p_.d_out);
      if (!p_.gated) continue;
      fetch_beside(p_, p_.up, neuron);
    }
    ++w.steps;
    w.opened = panel;
    w.opened_sums = sums;
  }

  // What is read after the panel that is multiplied now.
  void want_opened(Way& w) const {
    if (!waits(w)) w.second.want(p_, w.lines);
    if (w.opened < 0 || !p_.gated) return;
    const Open& open = w.open[(w.steps - 1) & 1];
    for (uint64_t left = open.any; left; left &= left - 1)
      w.lines.want(p_.up.bytes + (w.opened * kPanel + __builtin_ctzll(left)) * p_.up.stride, piece(p_, p_.up));
  }

  // What was fetched is used: rows of `down`, then those of `up`, whose values want rows of `down` in turn.
  void advance(Way& w) {
    add(w);
    value(w);
  }

  void finish(Way& w) {
    want_opened(w);
    w.lines.fetch(kStreamLead);
    advance(w);
    w.opened_sums = nullptr;
    want_opened(w);
    w.lines.fetch(kStreamLead);
    add(w);
  }

  // Whether what fired so far waits for the panel that was opened last.
  bool waits(const Way& w) const { return w.second.waits(w.opened_sums == w.wanted_sums); }

  // Hidden activations of the panel that was opened last: they want rows of `down`.
  void value(Way& w) {
    if (w.opened < 0) return;
    const GridToken* x[kStreamTokens];
    all_tokens(x);
    const int64_t first = w.opened * kPanel;
    const Open& open = w.open[(w.steps - 1) & 1];
    alignas(64) float up[kRows * kGridTile];
    for (uint64_t left = open.any; left;) {
      int64_t row[kRows];
      int n = 0;
      for (; n < kRows && left; left &= left - 1) row[n++] = first + __builtin_ctzll(left);
      if (p_.gated) up_products(row, n, x, w.decoded.data(), up, w.lines);
      for (int r = 0; r < n; ++r) want_down(w, open, first, static_cast<int>(row[r] - first), up + r * kGridTile);
    }
    w.wanted_sums = w.opened_sums;
    w.opened = -1;
  }

  // All tokens with n rows of `up`: what a token did not open costs no byte.
  void up_products(const int64_t* row, int n, const GridToken* const* x, float* decoded, float* up, Lines& lines) const {
    const int count = static_cast<int>(p_.tokens);
    if (n == kRows) return rows_dots<kRows>(p_, p_.up, row, x, count, decoded, up, lines);
    for (int r = 0; r < n; ++r)
      rows_dots<1>(p_, p_.up, row + r, x, count, decoded, up + r * kGridTile, lines);
  }

  void want_down(Way& w, const Open& open, int64_t first, int i, const float* up) {
    float values[kStreamTokens];
    uint8_t tokens[kStreamTokens];
    int kept = 0;
    for (int a = 0; a < open.count[i]; ++a) {
      const int t = open.token[i][a];
      const float value = hidden_value<T>(p_, first + i, open.value[i][a], up[t]);
      if (value == 0.f && !p_.every) continue;  // NaN is kept
      values[kept] = value;
      tokens[kept++] = static_cast<uint8_t>(t);
    }
    if (kept == 0) return;
    w.hits += kept;
    w.second.keep(p_, first + i, values, tokens, kept);
  }

  void add(Way& w) {
    if (!w.second.empty() && !waits(w)) w.second.add(p_, w.wanted_sums, stride_, w.lines);
  }

  int all_tokens(const GridToken** x) const {
    for (int64_t t = 0; t < p_.tokens; ++t) x[t] = &tokens_[t];
    return static_cast<int>(p_.tokens);
  }

  // A share of the output's columns: the sums of the segments, in order.
  void total(int64_t task) const {
    constexpr int64_t kColumns = 256;
    const int64_t share = up_to((p_.d_out + 2 * threads_ - 1) / (2 * threads_), 32);
    const int64_t end = std::min((task + 1) * share, p_.d_out);
    const T* bias = static_cast<const T*>(p_.down_bias);
    for (int64_t t = 0; t < p_.tokens; ++t) {
      T* y = static_cast<T*>(p_.y) + t * p_.d_out;
      for (int64_t c = task * share; c < end; c += kColumns) {
        const int64_t n = std::min(kColumns, end - c);
        alignas(64) float out[kColumns] = {};
        for (int64_t s = 0; s < segments_; ++s) {
          const float* part = sums_ + (s * p_.tokens + t) * stride_ + c;
          for (int64_t k = 0; k < n; ++k) out[k] += part[k];
        }
        for (int64_t k = 0; k < n; ++k) y[c + k] = narrow(bias ? out[k] + to_float(bias[c + k]) : out[k], T{});
      }
    }
  }

  const QuantisedProblem& p_;
  int64_t panels_, segments_, stride_;
  int threads_;
  GridTokens<T> tokens_;
  float* sums_;  // (segments, tokens, stride)
  Ranges first_;
  Counter done_, second_;
  std::atomic<int64_t> hits_{0};
};

}  // namespace LAZY_ISA
}  // namespace lazy
