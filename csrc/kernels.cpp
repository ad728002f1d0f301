// The sparse MLP block: certify, compute the undecided, add up what fires. Compiled once for each ISA level.
//
// Work is cut into a token tile x neuron panel grid (first pass) and a token tile x column grid (second pass). Whoever
// is free takes the next unit from an atomic counter, so the result never depends on how many threads really run.
#include <algorithm>
#include <atomic>
#include <vector>

#include "activation.h"
#include "firing.h"
#include "sketch.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// T: the model's dtype; W: what the rows of `down` are stored in (T, or int8_t).
template <class T, class W>
class Run {
 public:
  Run(const Problem& p, int threads, char* scratch, const Layout& l) : p_(p), l_(l), threads_(threads) {
    const int64_t n = p.tokens;
    tokens_ = take<Token>(scratch, n);
    planes_ = take<int8_t>(scratch, n * p.planes * p.padded_in);
    if constexpr (!std::is_same_v<T, float>) wide_ = take<float>(scratch, n * p.d_in);
    row_bytes_ = std::is_same_v<W, int8_t> ? 0 : p.d_in * static_cast<int64_t>(sizeof(T));
    fired_ = scratch;
  }

  static size_t scratch_bytes(const Problem& p, int threads, const Layout& l) {
    const int64_t n = p.tokens;
    const int64_t live = (l.independent ? threads : l.tiles) * l.panels;
    return up_to(n * sizeof(Token), 64) + up_to(n * p.planes * p.padded_in, 64) + up_to(n * p.d_in * sizeof(float), 64) +
           live * l.fired_bytes + 256;
  }

  void prepare_inline() {
    for (int64_t t = 0; t < p_.tokens; ++t) prepare(t);
    prepared_ = true;
  }

  // Any number of threads call this; together they do everything.
  void work() {
    thread_local Pipeline way;
    way.ahead.clear();
    if (l_.independent) {
      const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
      if (slot >= threads_) return;
      char* mine = fired_ + slot * l_.panels * l_.fired_bytes;
      first_.share(l_.tiles, [&](int64_t tile) {
        for (int64_t t = tile * l_.tile; t < std::min((tile + 1) * l_.tile, p_.tokens); ++t) prepare(t);
        for (int64_t panel = 0; panel < l_.panels; ++panel) step(way, tile, panel, mine);
        finish(way);
        for (int64_t c = 0; c < l_.column_tasks; ++c) second_pass(tile, c, mine);
      });
      return;
    }
    if (!prepared_) {
      zeroth_.share(p_.tokens, [&](int64_t t) { prepare(t); });
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

  void counts(int64_t* out) const {
    out[0] = computed_.load();
    out[1] = hits_.load();
  }

 private:
  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

  char* lists_of(int64_t tile) const { return fired_ + tile * l_.panels * l_.fired_bytes; }

  using X = typename TokenRow<T>::type;

  const float* wide_row(int64_t t) const {
    if constexpr (std::is_same_v<T, float>) return static_cast<const float*>(p_.x) + t * p_.d_in;
    else return wide_ + t * p_.d_in;
  }

  const X* x_row(int64_t t) const {
    if constexpr (std::is_same_v<X, T>) return static_cast<const X*>(p_.x) + t * p_.d_in;
    else return wide_row(t);
  }

  void prepare(int64_t t) {
    if constexpr (!std::is_same_v<T, float>) {
      const T* x = static_cast<const T*>(p_.x) + t * p_.d_in;
      float* out = wide_ + t * p_.d_in;
      for (int64_t k = 0; k < p_.d_in; ++k) out[k] = to_float(x[k]);
    }
    tokens_[t] = measure(wide_row(t), p_.d_in, p_.padded_in, p_.planes, planes_ + t * p_.planes * p_.padded_in);
    if (!nearest_) tokens_[t].norm = NAN;
  }

  // Which neurons of a panel have to be computed, for which tokens of the tile.
  struct Asked {
    uint64_t any;
    uint8_t count[kPanel];
    uint8_t token[kPanel][kMaxTile];
    alignas(64) float sketch[kMaxTile * kPanel];
  };

  // A worker's way through the panels: the sketch of one panel while the rows that the panel before asked for come
  // from memory, then that panel's exact values. The panel before may belong to another unit of work.
  struct Pipeline {
    Asked asked[2];
    Ahead ahead;
    int64_t steps = 0;
    int64_t tile = -1, panel = 0;  // what waits for its exact values; nothing when tile < 0
    char* lists = nullptr;
  };

  void step(Pipeline& w, int64_t tile, int64_t panel, char* lists) {
    const int64_t t0 = tile * l_.tile, first = panel * kPanel;
    const int count = static_cast<int>(std::min(l_.tile, p_.tokens - t0));
    const int8_t* planes[kMaxTile];
    const float* wide[kMaxTile];
    for (int t = 0; t < count; ++t) {
      planes[t] = planes_ + (t0 + t) * p_.planes * p_.padded_in;
      wide[t] = wide_row(t0 + t);
    }
    Asked& now = w.asked[w.steps & 1];
    sketch_panel(p_, p_.sketch + first * p_.padded_in, tokens_ + t0, planes, wide, count, now.sketch, w.ahead,
                 row_bytes_);
    for (int t = 0; t < count; ++t)
      if (const Token& token = tokens_[t0 + t]; token.odd)
        odd_product(p_.sketch + first * p_.padded_in, wide[t], p_.d_in, token.unscale, now.sketch + t * kPanel);
    ask(first, tokens_ + t0, count, now);
    w.ahead.clear();
    if (row_bytes_)
      for (uint64_t left = now.any; left; left &= left - 1)
        w.ahead.want(static_cast<const T*>(p_.first_rows) + (first + __builtin_ctzll(left)) * p_.d_in);
    finish(w);
    ++w.steps;
    w.tile = tile;
    w.panel = panel;
    w.lists = lists;
  }

  void finish(Pipeline& w) {
    if (w.tile < 0) return;
    const int64_t t0 = w.tile * l_.tile, count = std::min(l_.tile, p_.tokens - t0);
    const X* x[kMaxTile];
    for (int64_t t = 0; t < count; ++t) x[t] = x_row(t0 + t);
    exact(w.panel, w.asked[(w.steps - 1) & 1], tokens_ + t0, x, l_.fired(w.lists, w.panel));
    w.tile = -1;
  }

  void ask(int64_t first, const Token* tokens, int count, Asked& out) {
    out.any = 0;
    std::memset(out.count, 0, sizeof(out.count));
    for (int t = 0; t < count; ++t) {
      uint64_t bits = undecided(p_, first, tokens[t], out.sketch + t * kPanel);
      out.any |= bits;
      for (; bits; bits &= bits - 1) {
        const int i = __builtin_ctzll(bits);
        out.token[i][out.count[i]++] = static_cast<uint8_t>(t);
      }
    }
  }

  void exact(int64_t panel, const Asked& asked, const Token* tokens, const X* const* x, Fired* out) {
    const int64_t first = panel * kPanel;
    out->neurons = out->pairs = 0;
    int64_t computed = 0;
    for (uint64_t left = asked.any; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      computed += asked.count[i];
      if constexpr (std::is_same_v<W, int8_t>) keep_sketch(out, i, first, asked.token[i], asked.count[i], asked.sketch);
      else compute(out, i, first, asked.token[i], asked.count[i], tokens, x);
    }
    computed_.fetch_add(computed, std::memory_order_relaxed);
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
  }

  // weights="int8": the sketch's own pre-activation is the value; the row scale of `down` is folded in.
  void keep_sketch(Fired* out, int i, int64_t first, const uint8_t* asked, int n, const float* sketch) {
    int kept = 0;
    const float scale = p_.down_scale[first + i];
    for (int a = 0; a < n; ++a) {
      const float z = rounded<T>(sketch[asked[a] * kPanel + i]);
      keep(out, l_.tile, i, &kept, asked[a], activate<T>(p_, z) * scale);
    }
    close(out, kept);
  }

  static void row_dots(const T* row, int64_t d, const X* const* x, const uint8_t* which, int n, float* out) {
    const X* chosen[4];
    int a = 0;
    for (; a + 4 <= n; a += 4) {
      for (int j = 0; j < 4; ++j) chosen[j] = x[which[a + j]];
      dots<4>(row, chosen, d, out + a);
    }
    for (int j = 0; a + j < n; ++j) chosen[j] = x[which[a + j]];
    switch (n - a) {
      case 3: dots<3>(row, chosen, d, out + a); break;
      case 2: dots<2>(row, chosen, d, out + a); break;
      case 1: dots<1>(row, chosen, d, out + a); break;
      default: break;
    }
  }

  float pre_activation(float dot, float bias) const {
    return rounded<T>((p_.rounds_twice ? rounded<T>(dot) : dot) + bias);
  }

  void compute(Fired* out, int i, int64_t first, const uint8_t* asked, int n, const Token* tokens, const X* const* x) {
    const T* rows = static_cast<const T*>(p_.first_rows);
    const int64_t d = p_.d_in;
    const float bias = p_.certificate.bias[first + i];
    float z[kMaxTile];
    row_dots(rows + (first + i) * d, d, x, asked, n, z);
    int kept = 0;
    if (!p_.gated) {
      for (int a = 0; a < n; ++a) keep(out, l_.tile, i, &kept, asked[a], activate<T>(p_, pre_activation(z[a], bias)));
      return close(out, kept);
    }
    uint8_t open[kMaxTile];
    float gate[kMaxTile], up[kMaxTile];
    int n_open = 0;
    for (int a = 0; a < n; ++a) {
      const float s = activate<T>(p_, pre_activation(z[a], bias));
      // beyond the limit `up` may overflow, and 0 * inf is NaN
      if (s == 0.f && tokens[asked[a]].norm <= p_.certificate.limit[first + i]) continue;
      gate[n_open] = s;
      open[n_open++] = asked[a];
    }
    if (n_open == 0) return;
    const T* up_row = static_cast<const T*>(p_.up_rows) + (first + i) * d;
    row_dots(up_row, d, x, open, n_open, up);
    const float up_bias = p_.up_bias ? to_float(static_cast<const T*>(p_.up_bias)[first + i]) : 0.f;
    for (int a = 0; a < n_open; ++a) {
      const float second = pre_activation(up[a], up_bias);
      keep(out, l_.tile, i, &kept, open[a], rounded<T>(gate[a] * (p_.rectify_up && second <= 0.f ? 0.f : second)));
    }
    close(out, kept);
  }

  void second_pass(int64_t tile, int64_t task, char* lists) {
    const auto row = [&](int64_t neuron, int64_t c0) {
      return PlainRow<W>{static_cast<const W*>(p_.down_rows) + neuron * p_.d_out + c0};
    };
    accumulate<T, PlainRow<W>>(l_, tile, task, lists, p_.tokens, p_.d_out, p_.down_bias, p_.y, l_.panels, row);
  }

  const Problem& p_;
  const Layout& l_;
  int threads_;
  Token* tokens_;
  int8_t* planes_;
  float* wide_ = nullptr;
  int64_t row_bytes_;  // of one row that the first pass may ask for
  char* fired_;
  bool prepared_ = false;
  const bool nearest_ = rounds_to_nearest();  // as the thread that calls does
  Counter zeroth_, first_, second_;
  std::atomic<int64_t> workers_{0}, computed_{0}, hits_{0};
};

template <class T, class W>
void run(const Problem& p, int threads, Parallel parallel) {
  thread_local Scratch memory;
  const Layout l(p.tokens, p.d_hidden, p.d_out, threads);
  using R = Run<T, W>;
  R r(p, threads, memory.at_least(R::scratch_bytes(p, threads, l)), l);
  if (!l.independent && p.tokens * p.d_in <= 16384) r.prepare_inline();
  if (threads == 1) r.work();
  else parallel(threads, [](void* context) { static_cast<R*>(context)->work(); }, &r);
  r.counts(p.counts);
}

template <class T>
void run_rows(const Problem& p, int threads, Parallel parallel) {
  if (p.rows_i8) run<T, int8_t>(p, threads, parallel);
  else run<T, T>(p, threads, parallel);
}

}  // namespace

void kernel(const Problem& p, int threads, Parallel parallel) {
  switch (p.dtype) {
    case Dtype::bf16: return run_rows<bf16>(p, threads, parallel);
    case Dtype::f16: return run_rows<f16>(p, threads, parallel);
    default: return run_rows<float>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
