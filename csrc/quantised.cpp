// Linear layers and sparse MLP blocks on quantised weights. Compiled once for each ISA level.
//
// The first layer's rows are both sketch and value: their products decide which rows of `up` and `down` are read at all.
// A product does not depend on the tokens beside it, nor on what fires: the same weights run densely give the same bits.
#include <atomic>

#include "activation.h"
#include "firing.h"
#include "quantised_rows.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

constexpr int kRows = 4;  // that are multiplied together; 64 is a multiple
// Few tokens wait for memory: one row after the other is one stream, 1.3 times as fast as four beside each other
// (2026-11, Zen 5, two threads); more tokens use a row that is loaded once.
constexpr int kStreamTokens = 4;
constexpr int64_t kStreamLead = 6144;  // bytes

// Tokens on their grid, made by whoever is free.
template <class T>
class GridTokens {
 public:
  GridTokens(const QuantisedProblem& p, char*& scratch) : p_(p), base_size_(int64_t{16} * p.blocks.count) {
    const int64_t n = p.tokens;
    tokens_ = take<GridToken>(scratch, n);
    planes_ = take<int8_t>(scratch, n * 2 * p.padded_in);
    ordered_ = p.bits == 4 ? take<int8_t>(scratch, n * 2 * p.padded_in) : planes_;
    base_ = take<int32_t>(scratch, n * base_size_);
    wide_ = std::is_same_v<T, float> ? nullptr : take<float>(scratch, n * p.d_in);
  }

  static size_t scratch_bytes(const QuantisedProblem& p) {
    const int64_t n = p.tokens;
    return up_to(n * sizeof(GridToken), 64) + 2 * up_to(n * 2 * p.padded_in, 64) +
           up_to(n * int64_t{16} * p.blocks.count * sizeof(int32_t), 64) + up_to(n * p.d_in * sizeof(float), 64);
  }

  void prepare(int64_t t) const {
    const T* x = static_cast<const T*>(p_.x) + t * p_.d_in;
    const float* wide;
    if constexpr (std::is_same_v<T, float>) {
      wide = x;
    } else {
      float* out = wide_ + t * p_.d_in;
      for (int64_t k = 0; k < p_.d_in; ++k) out[k] = to_float(x[k]);
      wide = out;
    }
    int8_t* planes = planes_ + t * 2 * p_.padded_in;
    const Token m = measure(wide, p_.d_in, p_.padded_in, 2, planes);
    int8_t* ordered = ordered_ + t * 2 * p_.padded_in;
    int32_t* base = base_ + t * base_size_;
#if LAZY_VNNI
    if (p_.bits == 4) reorder(p_.blocks, p_.padded_in, planes, ordered, base);
#endif
    tokens_[t] = {ordered, base, wide, m.step, {m.sum[0], m.sum[1]}, m.odd};
  }

  const GridToken& operator[](int64_t t) const { return tokens_[t]; }

  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

 private:
  const QuantisedProblem& p_;
  int64_t base_size_;
  GridToken* tokens_;
  int8_t *planes_, *ordered_;
  int32_t* base_;
  float* wide_;
};

// The products of one panel of rows with the tokens of a tile: out[row * kGridTile + token].
inline void panel_dots(const QuantisedProblem& p, const QuantisedRows& rows, int64_t first, int64_t n,
                       const GridToken* const* x, int count, float* decoded, float* out, Fetch fetch) {
  int64_t r = 0;
  if (count <= kStreamTokens) {
    for (; r < n; ++r) rows_dots<1>(p, rows, first + r, x, count, decoded, out + r * kGridTile, kStreamLead, fetch);
    return;
  }
  const int64_t lead = kRows * row_bytes(p);
  for (; r + kRows <= n; r += kRows)
    rows_dots<kRows>(p, rows, first + r, x, count, decoded, out + r * kGridTile, lead, fetch);
  for (; r < n; ++r) rows_dots<1>(p, rows, first + r, x, count, decoded, out + r * kGridTile, lead, fetch);
}

template <class T>
float bias_of(const QuantisedRows& rows, int64_t row) {
  return rows.bias ? to_float(static_cast<const T*>(rows.bias)[row]) : 0.f;
}

// y = x W' + b: no activation, no second layer.
template <class T>
class Linear {
 public:
  Linear(const QuantisedProblem& p, int threads, char* scratch)
      : p_(p), l_(p.tokens, p.d_hidden, 1, threads), tokens_(p, scratch) {}

  static size_t scratch_bytes(const QuantisedProblem& p, int) { return GridTokens<T>::scratch_bytes(p) + 256; }

  void prepare_inline() {
    for (int64_t t = 0; t < p_.tokens; ++t) tokens_.prepare(t);
    prepared_ = true;
  }

  void work() {
    if (!prepared_) {
      zeroth_.share(p_.tokens, [&](int64_t t) { tokens_.prepare(t); });
      zeroth_.wait(p_.tokens);
    }
    const int64_t stretch = std::clamp<int64_t>(l_.panels / 32, 1, 8), units = (l_.panels + stretch - 1) / stretch;
    first_.share(units, [&](int64_t u) {
      for (int64_t panel = u * stretch; panel < std::min((u + 1) * stretch, l_.panels); ++panel) one_panel(panel);
    });
  }

  void counts(int64_t*) const {}

 private:
  void one_panel(int64_t panel) {
    alignas(64) float out[kPanel * kGridTile];
    thread_local std::vector<float> decoded;
    decoded.resize(static_cast<size_t>(p_.d_in));
    const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, p_.d_hidden - first);
    T* y = static_cast<T*>(p_.y);
    for (int64_t t0 = 0; t0 < p_.tokens; t0 += kGridTile) {
      const int count = static_cast<int>(std::min<int64_t>(kGridTile, p_.tokens - t0));
      const GridToken* x[kGridTile];
      for (int t = 0; t < count; ++t) x[t] = &tokens_[t0 + t];
      panel_dots(p_, p_.first, first, n, x, count, decoded.data(), out, Fetch{});
      for (int t = 0; t < count; ++t)
        for (int64_t r = 0; r < n; ++r)
          y[(t0 + t) * p_.d_hidden + first + r] = narrow(out[r * kGridTile + t] + bias_of<T>(p_.first, first + r), T{});
    }
  }

  const QuantisedProblem& p_;
  const Layout l_;
  GridTokens<T> tokens_;
  bool prepared_ = false;
  Counter zeroth_, first_;
};

// A piece of a row of int4 `down`.
struct NibbleRow {
  static constexpr int kVectors = 2;
  const uint8_t* at;     // of column c0
  const bf16* scale;     // of the row
  int64_t c0, group;

  LAZY_INLINE void load(int64_t k, v16f* out) const {
    const float s = to_float(scale[(c0 + k) / group]);
#if defined(__AVX512F__)
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + k / 2)));
    const __m512 value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    out[0] = reinterpret_cast<v16f>(_mm512_permutexvar_ps(both, value)) * s;  // by the low four bits
    out[1] = reinterpret_cast<v16f>(_mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), value)) * s;
#else
    for (int i = 0; i < 16; ++i) {
      out[0][i] = static_cast<float>((at[k / 2 + i] & 15) - 8) * s;
      out[1][i] = static_cast<float>((at[k / 2 + i] >> 4) - 8) * s;
    }
#endif
  }
  LAZY_INLINE void fetch(int64_t k) const {
    if (k % 128 == 0) __builtin_prefetch(at + k / 2);
  }
};

template <class T>
class Mlp {
 public:
  Mlp(const QuantisedProblem& p, int threads, char* scratch)
      : p_(p), l_(p.tokens, p.d_hidden, p.d_out, threads), threads_(threads), tokens_(p, scratch), lists_(scratch) {}

  static size_t scratch_bytes(const QuantisedProblem& p, int threads) {
    const Layout l(p.tokens, p.d_hidden, p.d_out, threads);
    const int64_t live = (l.independent ? threads : l.tiles) * l.panels;
    return GridTokens<T>::scratch_bytes(p) + live * l.fired_bytes + 256;
  }

  void prepare_inline() {
    if (l_.independent || given()) return;
    for (int64_t t = 0; t < p_.tokens; ++t) tokens_.prepare(t);
    prepared_ = true;
  }

  // Any number of threads call this; together they do everything.
  void work() {
    thread_local Pipeline way;
    way.clear(p_.d_in);
    if (l_.independent) {
      const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
      if (slot >= threads_) return;
      char* mine = lists_ + slot * l_.panels * static_cast<int64_t>(l_.fired_bytes);
      first_.share(l_.tiles, [&](int64_t tile) {
        for (int64_t t = tile * l_.tile; !given() && t < std::min((tile + 1) * l_.tile, p_.tokens); ++t)
          tokens_.prepare(t);
        for (int64_t panel = 0; panel < l_.panels; ++panel) step(way, tile, panel, mine);
        finish(way);
        for (int64_t c = 0; c < l_.column_tasks; ++c) second_pass(tile, c, mine);
      });
      return;
    }
    if (!prepared_ && !given()) {
      zeroth_.share(p_.tokens, [&](int64_t t) { tokens_.prepare(t); });
      zeroth_.wait(p_.tokens);
    }
    const int64_t units = l_.units();
    int64_t mine = 0;
    for (int64_t u; (u = first_.take()) < units; ++mine) {
      const int64_t end = std::min((u + 1) * l_.stretch, l_.panels);
      for (int64_t panel = u * l_.stretch; panel < end; ++panel)
        for (int64_t tile = 0; tile < l_.tiles; ++tile) step(way, tile, panel, lists_of(tile));
    }
    finish(way);
    first_.finished(mine);
    first_.wait(units);
    second_.share(l_.tiles * l_.column_tasks, [&](int64_t u) {
      const int64_t tile = u / l_.column_tasks;
      second_pass(tile, u % l_.column_tasks, lists_of(tile));
    });
  }

  void counts(int64_t* out) const { out[0] = out[1] = hits_.load(); }

 private:
  // The neurons of a panel that are open, for which tokens, and the values of the activation there.
  struct Open {
    uint64_t any;
    uint8_t count[kPanel];
    uint8_t token[kPanel][kGridTile];
    float value[kPanel][kGridTile];
  };

  // A worker's way through the panels: the first layer of one panel while the rows of `up` that the panel before opened
  // come from memory, then their products.
  struct Pipeline {
    Open open[2];
    Ahead ahead;
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

  bool given() const { return p_.first.bytes == nullptr; }

  char* lists_of(int64_t tile) const { return lists_ + tile * l_.panels * static_cast<int64_t>(l_.fired_bytes); }

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
      const float fold = p_.bits == 8 ? static_cast<const float*>(p_.down_scale)[first + i] : 1.f;
      int kept = 0;
      for (int64_t t = 0; t < count; ++t)
        keep(out, l_.tile, static_cast<int>(i), &kept, static_cast<int>(t), to_float(h[t * p_.d_hidden + i]) * fold);
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
    panel_dots(p_, p_.first, first, n, x, count, w.decoded.data(), z, Fetch{&w.ahead, row_bytes(p_)});
    Open& now = w.open[w.steps & 1];
    decide(first, n, x, count, z, now);
    w.ahead.clear();
    if (p_.gated)
      for (uint64_t left = now.any; left; left &= left - 1)
        w.ahead.want(p_.up.bytes + (first + __builtin_ctzll(left)) * row_bytes(p_));
    finish(w);
    ++w.steps;
    w.tile = tile;
    w.panel = panel;
    w.lists = lists;
  }

  void decide(int64_t first, int64_t n, const GridToken* const* x, int count, const float* z, Open& out) const {
    out.any = 0;
    for (int64_t i = 0; i < n; ++i) {
      int open = 0;
      const float bias = bias_of<T>(p_.first, first + i);
      for (int t = 0; t < count; ++t) {
        const float s = activate<float>(p_, z[i * kGridTile + t] + bias);
        // where no grid holds x, `up` may be infinite, and 0 times infinity is NaN
        if (s == 0.f && !p_.every && !x[t]->odd) continue;
        out.token[i][open] = static_cast<uint8_t>(t);
        out.value[i][open++] = s;
      }
      out.count[i] = static_cast<uint8_t>(open);
      if (open) out.any |= uint64_t{1} << i;
    }
  }

  void finish(Pipeline& w) {
    if (w.tile < 0) return;
    const GridToken* x[kGridTile];
    tile_tokens(w.tile, x);
    const int64_t first = w.panel * kPanel;
    const Open& open = w.open[(w.steps - 1) & 1];
    Fired* out = l_.fired(w.lists, w.panel);
    out->neurons = out->pairs = 0;
    for (uint64_t left = open.any; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      float up[kGridTile];
      if (p_.gated) up_products(first + i, open, i, x, w.decoded.data(), up);
      const float fold = p_.bits == 8 ? static_cast<const float*>(p_.down_scale)[first + i] : 1.f;
      int kept = 0;
      for (int a = 0; a < open.count[i]; ++a) {
        const float value = (p_.gated ? open.value[i][a] * up[a] : open.value[i][a]) * fold;
        (p_.every ? enter : keep)(out, l_.tile, i, &kept, open.token[i][a], value);
      }
      close(out, kept);
    }
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
    w.tile = -1;
  }

  void up_products(int64_t row, const Open& open, int i, const GridToken* const* x, float* decoded, float* up) const {
    const GridToken* chosen[kGridTile];
    const int n = open.count[i];
    for (int a = 0; a < n; ++a) chosen[a] = x[open.token[i][a]];
    rows_dots<1>(p_, p_.up, row, chosen, n, decoded, up, 0, Fetch{});
    const float bias = bias_of<T>(p_.up, row);
    for (int a = 0; a < n; ++a) {
      up[a] += bias;
      if (p_.rectify_up && up[a] <= 0.f) up[a] = 0.f;
    }
  }

  void second_pass(int64_t tile, int64_t task, char* lists) const {
    if (p_.bits == 8) {
      const auto row = [&](int64_t neuron, int64_t c0) {
        return PlainRow<int8_t>{static_cast<const int8_t*>(p_.down) + neuron * p_.d_out + c0};
      };
      accumulate<T, PlainRow<int8_t>>(l_, tile, task, lists, p_.tokens, p_.d_out, p_.down_bias, p_.y, row);
    } else {
      const auto row = [&](int64_t neuron, int64_t c0) {
        return NibbleRow{static_cast<const uint8_t*>(p_.down) + (neuron * p_.d_out + c0) / 2,
                         static_cast<const bf16*>(p_.down_scale) + neuron * (p_.d_out / p_.group), c0, p_.group};
      };
      accumulate<T, NibbleRow>(l_, tile, task, lists, p_.tokens, p_.d_out, p_.down_bias, p_.y, row);
    }
  }

  const QuantisedProblem& p_;
  const Layout l_;
  int threads_;
  GridTokens<T> tokens_;
  char* lists_;
  bool prepared_ = false;
  Counter zeroth_, first_, second_;
  std::atomic<int64_t> workers_{0}, hits_{0};
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
    case Dtype::bf16: return run<Mlp<bf16>>(p, threads, parallel);
    case Dtype::f16: return run<Mlp<f16>>(p, threads, parallel);
    default: return run<Mlp<float>>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
