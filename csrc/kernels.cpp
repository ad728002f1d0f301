// The sparse MLP block: certify, compute the undecided, add up what fires. Compiled once for each ISA level.
//
// Work is cut into a token tile x neuron panel grid (first pass) and a token tile x column grid (second pass). Whoever
// is free takes the next unit from an atomic counter, so the result never depends on how many threads really run.
#include <algorithm>
#include <atomic>
#include <vector>

#include "accumulate.h"
#include "activation.h"
#include "finish.h"
#include "sketch.h"
#include "token_sums.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

template <class T>
class Run;

}  // namespace

template <class T>
constexpr bool kFinishes<Run<T>> = true;

namespace {

// T: the model's dtype.
template <class T>
class Run {
 public:
  Run(const Problem& p, int threads, char* scratch, const Layout& l)
      : p_(p), l_(l), row_bytes_(p.d_in * static_cast<int64_t>(sizeof(T))), tokens_(take<Token>(scratch, p.tokens)),
        planes_(take<int8_t>(scratch, p.tokens * planes_of(p) * p.padded_in)),
        wide_(std::is_same_v<T, float> ? nullptr : take<float>(scratch, p.tokens * p.d_in)),
        passes_(l, p.tokens, threads, scratch) {}

  static size_t scratch_bytes(const Problem& p, int threads, const Layout& l) {
    const int64_t n = p.tokens;
    return up_to(n * sizeof(Token), 64) + up_to(n * planes_of(p) * p.padded_in, 64) + up_to(n * p.d_in * sizeof(float), 64) +
           TwoPasses::scratch_bytes(l, threads) + 256;
  }

  void prepare_inline() {
    for (int64_t t = 0; t < p_.tokens; ++t) prepare(t);
    prepared_ = true;
  }

  // Any number of threads call this; together they do everything.
  void work() {
    Pipeline& way = own<Run, Pipeline>();
    way.ahead.clear();
    passes_.work(*this, way);
  }

  void counts(int64_t* out) const {
    out[0] = computed_.load();
    out[1] = hits_.load();
  }

 private:
  friend TwoPasses;

  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

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
    tokens_[t] = measure_for_sketch(p_, wide_row(t), planes_ + t * planes_of(p_) * p_.padded_in);
    if (!nearest_) tokens_[t].norm = NAN;
  }

  void prepare_together() {
    if (prepared_) return;
    zeroth_.share(p_.tokens, [&](int64_t t) { prepare(t); });
    zeroth_.wait(p_.tokens);
  }

  // Which neurons of a panel have to be computed, for which tokens of the tile.
  struct Asked {
    uint64_t any;
    uint8_t count[kPanel];
    uint8_t token[kPanel][kMaxTile + 16];  // vectors are stored whole
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
      planes[t] = planes_ + (t0 + t) * planes_of(p_) * p_.padded_in;
      wide[t] = wide_row(t0 + t);
    }
    Asked& now = w.asked[w.steps & 1];
    const uint8_t* sketch = p_.sketch + first * p_.padded_in;
#if LAZY_VNNI
    if (together_) {
      alignas(64) int32_t products[kMaxTile * kPanel];
      panel_products(p_, sketch, tokens_ + t0, planes, count, products, w.ahead, row_bytes_);
      ask_together(first, {tokens_ + t0, products, count}, sketch, wide, now);
    } else
#endif
    {
      alignas(64) float products[kMaxTile * kPanel];
      sketch_panel(p_, sketch, tokens_ + t0, planes, wide, count, products, w.ahead, row_bytes_);
      for (int t = 0; t < count; ++t)
        if (const Token& token = tokens_[t0 + t]; token.odd)
          odd_product(sketch, wide[t], p_.d_in, token.unscale, products + t * kPanel);
#if LAZY_WORDS
      uint64_t asking[kPanel];
      undecided_together(p_, first, {tokens_ + t0, products, count}, asking);
      list(asking, now);
#else
      ask(first, tokens_ + t0, products, count, now);
#endif
    }
    w.ahead.clear();
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

#if !LAZY_WORDS
  void ask(int64_t first, const Token* tokens, const float* products, int count, Asked& out) {
    out.any = 0;
    std::memset(out.count, 0, sizeof(out.count));
    for (int t = 0; t < count; ++t) {
      uint64_t bits = undecided(p_, first, tokens[t], products + t * kPanel);
      out.any |= bits;
      for (; bits; bits &= bits - 1) {
        const int i = __builtin_ctzll(bits);
        out.token[i][out.count[i]++] = static_cast<uint8_t>(t);
      }
    }
  }
#endif

#if LAZY_VNNI
  void ask_together(int64_t first, const Tile& tile, const uint8_t* sketch, const float* const* wide, Asked& out) const {
    uint64_t asking[kPanel];
    undecided_together(p_, first, tile, asking);
    for (int t = 0; t < tile.count; ++t) {
      const Token& token = tile.tokens[t];
      if (!token.odd) continue;
      alignas(64) float products[kPanel];
      odd_product(sketch, wide[t], p_.d_in, token.unscale, products);
      const uint64_t bits = undecided(p_, first, token, products), one = uint64_t{1} << t;
      for (int i = 0; i < kPanel; ++i) asking[i] = bits >> i & 1 ? asking[i] | one : asking[i] & ~one;
    }
    list(asking, out);
  }
#endif

#if LAZY_VNNI || LAZY_WORDS
  static void list(const uint64_t* asking, Asked& out) {
    out.any = 0;
    for (int i = 0; i < kPanel; ++i) {
      if (!asking[i]) continue;
      out.any |= uint64_t{1} << i;
      out.count[i] = static_cast<uint8_t>(places(asking[i], out.token[i]));
    }
  }
#endif

  void exact(int64_t panel, const Asked& asked, const Token* tokens, const X* const* x, Fired* out) {
    const int64_t first = panel * kPanel;
    out->neurons = out->pairs = 0;
    int64_t computed = 0;
    for (uint64_t left = asked.any; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      computed += asked.count[i];
      compute(out, i, first, asked.token[i], asked.count[i], tokens, x);
    }
    computed_.fetch_add(computed, std::memory_order_relaxed);
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
  }

  static void row_dots(const T* row, int64_t d, const X* const* x, const uint8_t* which, int n, float* out) {
    const X* chosen[8];
    int a = 0;
    for (; a + 8 <= n; a += 8) {
      for (int j = 0; j < 8; ++j) chosen[j] = x[which[a + j]];
      dots<8>(row, chosen, d, out + a);
    }
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
      if constexpr (!std::is_same_v<T, f16>) {
        if (p_.activation == Activation::relu) {
          enter_positive<T>(out, l_.tile, i, &kept, asked, z, bias, n, p_.rounds_twice);
          return close(out, kept);
        }
      }
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
      return PlainRow<T>{static_cast<const T*>(p_.down_rows) + neuron * p_.d_out + c0};
    };
    accumulate<T, PlainRow<T>>(l_, tile, task, lists, p_.tokens, p_.d_out, p_.down_bias, p_.y, l_.panels, row);
  }

  // All columns of a tile that is one worker's.
  void second_pass_alone(int64_t tile, char* lists) {
    if constexpr (std::is_same_v<T, float>) {  // rows of 16 bits are half as long, and no faster this way
      ByToken& fired = own<Run, ByToken>();
      const int64_t t0 = tile * l_.tile, count = std::min(l_.tile, p_.tokens - t0);
      if (fired.gather(l_, lists, count)) return sum_tokens<T>(fired, p_, t0, count);
    }
    for (int64_t task = 0; task < l_.column_tasks; ++task) second_pass(tile, task, lists);
  }

  bool finishes() const { return p_.finish; }

  void finish_token(int64_t t) const {
    if (p_.finish) finish_row(*p_.finish, static_cast<const T*>(p_.y) + t * p_.d_out, t, p_.d_out);
  }

  const Problem& p_;
  const Layout& l_;
  const int64_t row_bytes_;  // of one row that the first pass may ask for
  Token* const tokens_;
  int8_t* const planes_;
  float* const wide_;
  bool prepared_ = false;
  const bool nearest_ = rounds_to_nearest();  // as the thread that calls does
  const bool together_ = p_.planes == 1 && !(p_.low <= p_.high);  // no inner interval on which it is zero
  TwoPasses passes_;
  Counter zeroth_;
  std::atomic<int64_t> computed_{0}, hits_{0};
};

template <class T>
void run(const Problem& p, int threads, Parallel parallel) {
  thread_local Scratch memory;
  const Layout l(p.tokens, p.d_hidden, p.d_out, threads);
  using R = Run<T>;
  R r(p, threads, memory.at_least(R::scratch_bytes(p, threads, l)), l);
  if (!l.independent && p.tokens * p.d_in <= 16384) r.prepare_inline();
  if (threads == 1) r.work();
  else parallel(threads, [](void* context) { static_cast<R*>(context)->work(); }, &r);
  r.counts(p.counts);
}

}  // namespace

void kernel(const Problem& p, int threads, Parallel parallel) {
  switch (p.dtype) {
    case Dtype::bf16: return run<bf16>(p, threads, parallel);
    case Dtype::f16: return run<f16>(p, threads, parallel);
    default: return run<float>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
