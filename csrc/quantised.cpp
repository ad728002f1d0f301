// Linear layers and sparse MLP blocks on quantised weights. Compiled once for each ISA level.
//
// The first layer's rows are both sketch and value: their products decide which rows of `up` and `down` are read at all.
// A product does not depend on the tokens beside it, nor on what fires: the same weights run densely give the same bits.
#include <atomic>

#include "accumulate.h"
#include "quantised_few.h"
#include "quantised_many.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// y = x W' + b: no activation, no second layer.
template <class T>
class Linear {
 public:
  Linear(const QuantisedProblem& p, int threads, char* scratch)
      : p_(p), panels_((p.d_hidden + kPanel - 1) / kPanel), tokens_(p, scratch), first_(panels_, threads) {}

  static size_t scratch_bytes(const QuantisedProblem& p, int) { return GridTokens<T>::scratch_bytes(p) + 256; }

  void prepare_inline() { tokens_.prepare_inline(); }

  void work() {
    tokens_.prepare_together();
    Ranges::Seat seat = first_.seat();
    int64_t panel = first_.take(seat);
    Lines& lines = own<Linear, Lines>();
    lines.clear();
    if (panel >= 0 && streams(p_.tokens)) {
      want_panel(p_, p_.first, panel, lines);
      lines.fetch(kStreamLead);
    }
    for (; panel >= 0; panel = first_.take(seat)) one_panel(panel, lines);
  }

  void counts(int64_t*) const {}

 private:
  void one_panel(int64_t panel, Lines& lines) {
    alignas(64) float out[kPanel * kGridTile];
    thread_local std::vector<float> decoded;
    decoded.resize(static_cast<size_t>(p_.d_in));
    const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p_.d_hidden - first);
    T* y = static_cast<T*>(p_.y);
    if (streams(p_.tokens)) want_panel(p_, p_.first, panel + 1, lines);
    for (int64_t t0 = 0; t0 < p_.tokens; t0 += kGridTile) {
      const int count = static_cast<int>(std::min<int64_t>(kGridTile, p_.tokens - t0));
      const GridToken* x[kGridTile];
      for (int t = 0; t < count; ++t) x[t] = &tokens_[t0 + t];
      panel_dots(p_, p_.first, first, n, x, count, decoded.data(), out, lines);
      for (int t = 0; t < count; ++t)
        for (int64_t r = 0; r < n; ++r)
          y[(t0 + t) * p_.d_hidden + first + r] = narrow(out[r * kGridTile + t] + bias_of<T>(p_.first, first + r), T{});
    }
  }

  const QuantisedProblem& p_;
  int64_t panels_;
  GridTokens<T> tokens_;
  Ranges first_;
};

// A panel that was unpacked serves the tiles of all workers; the lists of more tokens would take much memory.
constexpr int64_t kAloneFrom = 1024;

// More tokens: what they open is listed first, a panel after the other; then the listed rows of `down` are read.
template <class T>
class ManyTokens {
 public:
  ManyTokens(const QuantisedProblem& p, int threads, char* scratch)
      : p_(p),
        l_(layout(p, threads)),
        tokens_(p, scratch),
        passes_(l_, p.tokens, threads, scratch) {}

  static size_t scratch_bytes(const QuantisedProblem& p, int threads) {
    const Layout l = layout(p, threads);
    return GridTokens<T>::scratch_bytes(p) + TwoPasses::scratch_bytes(l, threads) + 256;
  }

  void prepare_inline() {
    if (!l_.independent && !given()) tokens_.prepare_inline();
  }

  void work() {
    Pipeline& way = own<ManyTokens, Pipeline>();
    way.clear(p_.d_in);
    passes_.work(*this, way);
  }

  void counts(int64_t* out) const { out[0] = out[1] = hits_.load(); }

 private:
  friend TwoPasses;

  // A worker's way through the panels: the first layer of one panel while the rows of `up` that the panel before opened
  // come from memory, then their products.
  struct Pipeline {
    Open open[2];
    Lines ahead;
    std::vector<float> decoded;
    int64_t steps;
    int64_t tile, panel;  // what waits for its products; nothing when tile < 0
    char* lists;

    void clear(int64_t d_in) {
      ahead.clear();
      decoded.resize(static_cast<size_t>(d_in));
      steps = 0;
      tile = -1;
    }
  };

  static Layout layout(const QuantisedProblem& p, int threads) {
    if (p.bits == 8) return {p.tokens, p.d_hidden, p.d_out, threads, kAloneFrom};
    return {p.tokens, p.d_hidden, p.d_out, threads, kAloneFrom, kNibbleShareStep, kNibbleShare};
  }

  bool given() const { return p_.first.bytes == nullptr; }

  void prepare(int64_t t) {
    if (!given()) tokens_.prepare(t);
  }

  void prepare_together() {
    if (!given()) tokens_.prepare_together();
  }

  int tile_tokens(int64_t tile, const GridToken** x) const {
    const int64_t t0 = tile * l_.tile;
    const int count = static_cast<int>(std::min(l_.tile, p_.tokens - t0));
    for (int t = 0; t < count; ++t) x[t] = &tokens_[t0 + t];
    return count;
  }

  // The hidden activations are given: what of them is not zero fires.
  void enter_given(int64_t tile, int64_t panel, char* lists) {
    const int64_t t0 = tile * l_.tile, count = std::min(l_.tile, p_.tokens - t0);
    const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p_.d_hidden - first);
    const T* h = static_cast<const T*>(p_.x) + t0 * p_.d_hidden + first;
    Fired* out = l_.fired(lists, panel);
    out->neurons = out->pairs = 0;
    for (int64_t i = 0; i < n; ++i) {
      int kept = 0;
      for (int64_t t = 0; t < count; ++t)
        keep(out, l_.tile, static_cast<int>(i), &kept, static_cast<int>(t),
             folded(p_, first + i, to_float(h[t * p_.d_hidden + i])));
      close(out, kept);
    }
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
  }

  void step(Pipeline& w, int64_t tile, int64_t panel, char* lists) {
    if (given()) return enter_given(tile, panel, lists);
    const GridToken* x[kGridTile];
    const int count = tile_tokens(tile, x);
    const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p_.d_hidden - first);
    alignas(64) float z[kPanel * kGridTile];
    panel_dots(p_, p_.first, first, n, x, count, w.decoded.data(), z, w.ahead);
    Open& now = w.open[w.steps & 1];
    decide<T>(p_, first, n, x, count, z, now);
    w.ahead.clear();
    if (p_.gated)
      for (uint64_t left = now.any; left; left &= left - 1)
        w.ahead.want(p_.up.bytes + (first + __builtin_ctzll(left)) * p_.up.stride, piece(p_, p_.up));
    finish(w);
    ++w.steps;
    w.tile = tile;
    w.panel = panel;
    w.lists = lists;
  }

  void finish(Pipeline& w) {
    if (w.tile < 0) return;
    const GridToken* x[kGridTile];
    const int count = tile_tokens(w.tile, x);
    const int64_t first = w.panel * kPanel, rows = std::min<int64_t>(kPanel, p_.d_hidden - first);
    const Open& open = w.open[(w.steps - 1) & 1];
    Fired* out = l_.fired(w.lists, w.panel);
    Lines none;
    alignas(64) float products[kPanel * kGridTile];
    const bool together = p_.gated && open.mostly(rows, count);
    if (together) panel_dots(p_, p_.up, first, rows, x, count, w.decoded.data(), products, none);
    out->neurons = out->pairs = 0;
    for (uint64_t left = open.any; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      const int n = open.count[i];
      const int64_t row = first + i;
      float up[kGridTile];
      if (together) {
        for (int a = 0; a < n; ++a) up[a] = products[i * kGridTile + open.token[i][a]];
      } else if (p_.gated) {
        const GridToken* chosen[kGridTile];
        for (int a = 0; a < n; ++a) chosen[a] = x[open.token[i][a]];
        rows_dots<1>(p_, p_.up, &row, chosen, n, w.decoded.data(), up, none);
      }
      int kept = 0;
      for (int a = 0; a < n; ++a)
        (p_.every ? enter : keep)(out, l_.tile, i, &kept, open.token[i][a],
                                  hidden_value<T>(p_, row, open.value[i][a], up[a]));
      close(out, kept);
    }
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
    w.tile = -1;
  }

  void second_pass(int64_t tile, int64_t task, char* lists) const {
    if (p_.bits == 4) return NibbleShare<T>(p_, l_, tile, task, lists).work();
    using Row = PlainRow<int8_t>;
    const auto row = [&](int64_t neuron, int64_t c0) { return Row{reinterpret_cast<const int8_t*>(down_row(p_, neuron, c0))}; };
    accumulate<T, Row>(l_, tile, task, lists, p_.tokens, p_.d_out, p_.down_bias, p_.y, kSegment, row);
  }

  const QuantisedProblem& p_;
  const Layout l_;
  GridTokens<T> tokens_;
  TwoPasses passes_;
  std::atomic<int64_t> hits_{0};
};

template <class R>
void run(const QuantisedProblem& p, int threads, Parallel parallel) {
  thread_local Scratch memory;
  R r(p, threads, memory.at_least(R::scratch_bytes(p, threads)));
  if (p.tokens * p.d_in <= 16384) r.prepare_inline();
  if (threads == 1) r.work();
  else parallel(threads, [](void* context) { static_cast<R*>(context)->work(); }, &r);
  if (p.counts) r.counts(p.counts);
}

template <class T>
void run_block(const QuantisedProblem& p, int threads, Parallel parallel) {
  if (p.first.bytes == nullptr || !streams(p.tokens)) run<ManyTokens<T>>(p, threads, parallel);
  else if (p.bits == 8) run<FewTokens<T, ByteSecond>>(p, threads, parallel);
  else run<FewTokens<T, NibbleSecond<kHalves<T>>>>(p, threads, parallel);
}

}  // namespace

void quantised_linear(const QuantisedProblem& p, int threads, Parallel parallel) {
  switch (p.dtype) {
    case Dtype::bf16: return run<Linear<bf16>>(p, threads, parallel);
    case Dtype::f16: return run<Linear<f16>>(p, threads, parallel);
    default: return run<Linear<float>>(p, threads, parallel);
  }
}

void quantised_mlp(const QuantisedProblem& p, int threads, Parallel parallel) {
  switch (p.dtype) {
    case Dtype::bf16: return run_block<bf16>(p, threads, parallel);
    case Dtype::f16: return run_block<f16>(p, threads, parallel);
    default: return run_block<float>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
