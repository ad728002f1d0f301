// The sparse MLP block: certify, compute the undecided, add up what fires. Compiled once for each ISA level.
//
// Work is cut into a token tile x neuron panel grid (first pass) and a token tile x column grid (second pass). Whoever
// is free takes the next unit from an atomic counter, so the result never depends on how many threads really run.
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "activation.h"
#include "sketch.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// The pairs of one (tile, panel) that fired, neuron by neuron.
struct Fired {
  int32_t neurons;                        // how many neurons fired at least once
  int32_t pairs;
  int32_t index[kPanel];                  // their positions in the panel
  uint8_t count[kPanel];                  // tokens each fired for
  // followed in memory by: float value[kPanel * tile], uint8_t token[kPanel * tile]
};

struct Layout {
  int64_t tile;          // tokens in a full tile
  int64_t tiles, panels;
  int64_t columns, column_tasks;
  size_t fired_bytes;    // one Fired with its tails
  bool independent;      // each tile start to end by one worker, instead of all workers on the same tile
};

inline int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline float* values_of(Fired* f) { return reinterpret_cast<float*>(f + 1); }
inline uint8_t* tokens_of(Fired* f, int64_t tile) {
  return reinterpret_cast<uint8_t*>(values_of(f) + kPanel * tile);
}

Layout plan(const Problem& p, int threads) {
  Layout l;
  l.independent = p.tokens >= 32 * 2 * static_cast<int64_t>(threads);
  const int64_t wanted = l.independent ? (p.tokens + 2 * threads - 1) / (2 * threads) : p.tokens;
  l.tile = std::clamp<int64_t>(wanted, 1, kMaxTile);
  l.tiles = (p.tokens + l.tile - 1) / l.tile;
  l.panels = (p.d_hidden + kPanel - 1) / kPanel;
  const int64_t most = std::max<int64_t>(16, kAccumulators / l.tile / 16 * 16);
  int64_t tasks = l.independent ? 1 : threads;
  while (up_to((p.d_out + tasks - 1) / tasks, 16) > most) tasks += l.independent ? 1 : threads;
  l.columns = up_to((p.d_out + tasks - 1) / tasks, 16);
  l.column_tasks = (p.d_out + l.columns - 1) / l.columns;
  l.fired_bytes = up_to(sizeof(Fired) + kPanel * l.tile * (sizeof(float) + 1), 64);
  return l;
}

// Scratch of the calling thread, kept between calls and only ever grown.
class Scratch {
 public:
  char* at_least(size_t bytes) {
    if (bytes > size_) {
      memory_.reset(static_cast<char*>(std::aligned_alloc(64, up_to(static_cast<int64_t>(bytes), 64))));
      if (!memory_) throw std::bad_alloc();
      size_ = bytes;
    }
    return memory_.get();
  }

 private:
  struct Free { void operator()(char* p) const { std::free(p); } };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

struct Counter {
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int64_t> done{0};

  template <class F>
  void share(int64_t total, const F& unit) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < total;) {
      unit(i);
      done.fetch_add(1, std::memory_order_release);
    }
  }

  // Units still running are held by running threads, so this always ends.
  void wait(int64_t total) const {
    for (int spins = 0; done.load(std::memory_order_acquire) < total; ++spins) {
#if defined(__x86_64__)
      _mm_pause();
#endif
      if (spins > 2000) sched_yield();
    }
  }
};

// T: the model's dtype; W: what the rows of `down` are stored in (T, or int8_t).
template <class T, class W>
class Run {
 public:
  Run(const Problem& p, int threads, char* scratch, const Layout& l) : p_(p), l_(l), threads_(threads) {
    const int64_t n = p.tokens;
    tokens_ = take<Token>(scratch, n);
    planes_ = take<int8_t>(scratch, n * p.planes * p.padded_in);
    if constexpr (!std::is_same_v<T, float>) wide_ = take<float>(scratch, n * p.d_in);
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
    if (l_.independent) {
      const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
      if (slot >= threads_) return;
      char* mine = fired_ + slot * l_.panels * l_.fired_bytes;
      first_.share(l_.tiles, [&](int64_t tile) {
        for (int64_t t = tile * l_.tile; t < std::min((tile + 1) * l_.tile, p_.tokens); ++t) prepare(t);
        for (int64_t panel = 0; panel < l_.panels; ++panel) certify(tile, panel, fired(mine, panel));
        for (int64_t c = 0; c < l_.column_tasks; ++c) accumulate(tile, c, mine);
      });
      return;
    }
    if (!prepared_) {
      zeroth_.share(p_.tokens, [&](int64_t t) { prepare(t); });
      zeroth_.wait(p_.tokens);
    }
    const int64_t units = l_.tiles * l_.panels;
    first_.share(units, [&](int64_t u) {
      const int64_t tile = u / l_.panels, panel = u % l_.panels;
      certify(tile, panel, fired(fired_ + tile * l_.panels * l_.fired_bytes, panel));
    });
    first_.wait(units);
    second_.share(l_.tiles * l_.column_tasks, [&](int64_t u) {
      const int64_t tile = u / l_.column_tasks;
      accumulate(tile, u % l_.column_tasks, fired_ + tile * l_.panels * l_.fired_bytes);
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

  Fired* fired(char* base, int64_t panel) const { return reinterpret_cast<Fired*>(base + panel * l_.fired_bytes); }

  const float* x_row(int64_t t) const {
    if constexpr (std::is_same_v<T, float>) return static_cast<const float*>(p_.x) + t * p_.d_in;
    else return wide_ + t * p_.d_in;
  }

  void prepare(int64_t t) {
    if constexpr (!std::is_same_v<T, float>) {
      const T* x = static_cast<const T*>(p_.x) + t * p_.d_in;
      float* out = wide_ + t * p_.d_in;
      for (int64_t k = 0; k < p_.d_in; ++k) out[k] = to_float(x[k]);
    }
    tokens_[t] = quantise(x_row(t), p_.d_in, p_.padded_in, p_.planes, planes_ + t * p_.planes * p_.padded_in);
  }

  // First pass: which neurons of the panel fire for which tokens of the tile, and with what value.
  void certify(int64_t tile, int64_t panel, Fired* out) {
    const int64_t t0 = tile * l_.tile, first = panel * kPanel;
    const int count = static_cast<int>(std::min(l_.tile, p_.tokens - t0));
    alignas(64) float sketch[kMaxTile * kPanel];
    const int8_t* planes[kMaxTile];
    const float* x[kMaxTile];
    for (int t = 0; t < count; ++t) {
      planes[t] = planes_ + (t0 + t) * p_.planes * p_.padded_in;
      x[t] = x_row(t0 + t);
    }
    sketch_panel(p_, p_.sketch + first * p_.padded_in, tokens_ + t0, planes, x, count, sketch);

    uint8_t asked[kPanel][kMaxTile];
    uint8_t number[kPanel] = {};
    uint64_t any = 0;
    for (int t = 0; t < count; ++t) {
      uint64_t bits = undecided(p_, first, tokens_[t0 + t], sketch + t * kPanel);
      any |= bits;
      for (; bits; bits &= bits - 1) {
        const int i = __builtin_ctzll(bits);
        asked[i][number[i]++] = static_cast<uint8_t>(t);
      }
    }
    out->neurons = out->pairs = 0;
    int64_t computed = 0;
    for (uint64_t left = any; left; left &= left - 1) {
      const int i = __builtin_ctzll(left);
      const uint64_t rest = left & (left - 1);
      const int64_t next = first + (rest ? __builtin_ctzll(rest) : i);
      computed += number[i];
      if constexpr (std::is_same_v<W, int8_t>) keep_sketch(out, i, first, asked[i], number[i], sketch);
      else compute(out, i, first, next, asked[i], number[i], x);
    }
    computed_.fetch_add(computed, std::memory_order_relaxed);
    hits_.fetch_add(out->pairs, std::memory_order_relaxed);
  }

  void keep(Fired* out, int i, int* kept, int token, float value) {
    if (value == 0.f) return;
    values_of(out)[out->pairs] = value;
    tokens_of(out, l_.tile)[out->pairs++] = static_cast<uint8_t>(token);
    if ((*kept)++ == 0) out->index[out->neurons] = i;
  }

  void close(Fired* out, int kept) {
    if (kept) out->count[out->neurons++] = static_cast<uint8_t>(kept);
  }

  // weights="int8": the sketch's own pre-activation is the value; the row scale of `down` is folded in.
  void keep_sketch(Fired* out, int i, int64_t first, const uint8_t* asked, int n, const float* sketch) {
    int kept = 0;
    const float scale = p_.down_scale[first + i];
    for (int a = 0; a < n; ++a) {
      const float z = rounded<T>(sketch[asked[a] * kPanel + i]);
      keep(out, i, &kept, asked[a], rounded<T>(activate(p_, z)) * scale);
    }
    close(out, kept);
  }

  static void row_dots(const T* row, const T* next, int64_t d, const float* const* x, const uint8_t* which, int n,
                       float* out) {
    const float* chosen[4];
    int a = 0;
    for (; a + 4 <= n; a += 4) {
      for (int j = 0; j < 4; ++j) chosen[j] = x[which[a + j]];
      dots<4>(row, chosen, d, next, out + a);
    }
    for (int j = 0; a + j < n; ++j) chosen[j] = x[which[a + j]];
    switch (n - a) {
      case 3: dots<2>(row, chosen, d, next, out + a); a += 2; chosen[0] = chosen[2]; [[fallthrough]];
      case 1: dots<1>(row, chosen, d, next, out + a); break;
      case 2: dots<2>(row, chosen, d, next, out + a); break;
      default: break;
    }
  }

  void compute(Fired* out, int i, int64_t first, int64_t next, const uint8_t* asked, int n, const float* const* x) {
    const T* rows = static_cast<const T*>(p_.switch_rows);
    const int64_t d = p_.d_in;
    const float bias = p_.certificate.bias[first + i];
    float z[kMaxTile];
    row_dots(rows + (first + i) * d, rows + next * d, d, x, asked, n, z);
    int kept = 0;
    if (!p_.gated) {
      for (int a = 0; a < n; ++a) keep(out, i, &kept, asked[a], rounded<T>(activate(p_, rounded<T>(z[a] + bias))));
      return close(out, kept);
    }
    uint8_t open[kMaxTile];
    float gate[kMaxTile], up[kMaxTile];
    int n_open = 0;
    for (int a = 0; a < n; ++a) {
      const float s = rounded<T>(activate(p_, rounded<T>(z[a] + bias)));
      if (s == 0.f) continue;
      gate[n_open] = s;
      open[n_open++] = asked[a];
    }
    if (n_open == 0) return;
    const T* up_row = static_cast<const T*>(p_.up_rows) + (first + i) * d;
    row_dots(up_row, rows + next * d, d, x, open, n_open, up);
    const float up_bias = p_.up_bias ? to_float(static_cast<const T*>(p_.up_bias)[first + i]) : 0.f;
    for (int a = 0; a < n_open; ++a) {
      const float h = rounded<T>(gate[a] * rounded<T>(up[a] + up_bias));
      keep(out, i, &kept, open[a], h);
    }
    close(out, kept);
  }

  // Second pass: columns [c0, c1) of the tile's output, from the rows of `down` that fired.
  void accumulate(int64_t tile, int64_t task, char* lists) {
    const int64_t t0 = tile * l_.tile, count = std::min(l_.tile, p_.tokens - t0);
    const int64_t c0 = task * l_.columns, width = std::min(l_.columns, p_.d_out - c0);
    const W* rows = static_cast<const W*>(p_.down_rows) + c0;
    alignas(64) float sums[kAccumulators];
    const int64_t stride = l_.columns;
    std::memset(sums, 0, static_cast<size_t>(count * stride) * sizeof(float));
    if (count == 1) accumulate_one(lists, rows, width, sums);
    else
      for (int64_t panel = 0; panel < l_.panels; ++panel) {
        Fired* f = fired(lists, panel);
        const float* value = values_of(f);
        const uint8_t* token = tokens_of(f, l_.tile);
        for (int32_t e = 0; e < f->neurons; ++e) {
          const W* row = rows + (panel * kPanel + f->index[e]) * p_.d_out;
          const W* next = rows + (panel * kPanel + f->index[e + 1 < f->neurons ? e + 1 : e]) * p_.d_out;
          add_row(row, next, width, value, token, f->count[e], sums, stride);
          value += f->count[e];
          token += f->count[e];
        }
      }
    store(t0, count, c0, width, sums, stride);
  }

  // y[token] += value * row for the tokens that the neuron fired for; the row piece stays in registers.
  static void add_row(const W* row, const W* next, int64_t width, const float* value, const uint8_t* token, int n,
                      float* sums, int64_t stride) {
    int64_t k = 0;
    for (; k + 128 <= width; k += 128) {
      v16f w[8];
#pragma GCC unroll 8
      for (int u = 0; u < 8; ++u) {
        w[u] = load16(row + k + 16 * u);
        if ((16 * u * sizeof(W)) % 64 == 0) __builtin_prefetch(next + k + 16 * u);
      }
      for (int a = 0; a < n; ++a) {
        float* y = sums + token[a] * stride + k;
        const v16f v = splat(value[a]);
#pragma GCC unroll 8
        for (int u = 0; u < 8; ++u) {
          const v16f sum = load16(y + 16 * u) + v * w[u];
          std::memcpy(y + 16 * u, &sum, 64);
        }
      }
    }
    for (; k + 16 <= width; k += 16) {
      const v16f w = load16(row + k);
      __builtin_prefetch(next + k);
      for (int a = 0; a < n; ++a) {
        float* y = sums + token[a] * stride + k;
        const v16f sum = load16(y) + splat(value[a]) * w;
        std::memcpy(y, &sum, 64);
      }
    }
    for (; k < width; ++k)
      for (int a = 0; a < n; ++a) sums[token[a] * stride + k] += value[a] * to_float(row[k]);
  }

  // One token: four rows together, so that the running sum is read and written once for four rows.
  void accumulate_one(char* lists, const W* rows, int64_t width, float* sums) {
    const W* row[8];
    float value[8];
    int held = 0;
    for (int64_t panel = 0; panel < l_.panels; ++panel) {
      Fired* f = fired(lists, panel);
      for (int32_t e = 0; e < f->neurons; ++e) {
        row[held] = rows + (panel * kPanel + f->index[e]) * p_.d_out;
        value[held++] = values_of(f)[e];
        if (held == 8) {
          add_four(row, row + 4, value, width, sums);
          for (int j = 0; j < 4; ++j) { row[j] = row[j + 4]; value[j] = value[j + 4]; }
          held = 4;
        }
      }
    }
    if (held >= 4) {
      add_four(row, row, value, width, sums);
      for (int j = 4; j < held; ++j) { row[j - 4] = row[j]; value[j - 4] = value[j]; }
      held -= 4;
    }
    const uint8_t zero = 0;
    for (int j = 0; j < held; ++j) add_row(row[j], row[j], width, value + j, &zero, 1, sums, l_.columns);
  }

  static void add_four(const W* const* row, const W* const* next, const float* value, int64_t width, float* sums) {
    int64_t k = 0;
    const v16f v[4] = {splat(value[0]), splat(value[1]), splat(value[2]), splat(value[3])};
    for (; k + 16 <= width; k += 16) {
      v16f sum = load16(sums + k);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        sum += v[j] * load16(row[j] + k);
        if ((k * sizeof(W)) % 64 == 0) __builtin_prefetch(next[j] + k);
      }
      std::memcpy(sums + k, &sum, 64);
    }
    for (; k < width; ++k)
      for (int j = 0; j < 4; ++j) sums[k] += value[j] * to_float(row[j][k]);
  }

  void store(int64_t t0, int64_t count, int64_t c0, int64_t width, const float* sums, int64_t stride) {
    T* y = static_cast<T*>(p_.y);
    const T* bias = static_cast<const T*>(p_.down_bias);
    for (int64_t t = 0; t < count; ++t) {
      T* out = y + (t0 + t) * p_.d_out + c0;
      const float* in = sums + t * stride;
      for (int64_t k = 0; k < width; ++k) out[k] = narrow(bias ? in[k] + to_float(bias[c0 + k]) : in[k], T{});
    }
  }

  const Problem& p_;
  const Layout& l_;
  int threads_;
  Token* tokens_;
  int8_t* planes_;
  float* wide_ = nullptr;
  char* fired_;
  bool prepared_ = false;
  Counter zeroth_, first_, second_;
  std::atomic<int64_t> workers_{0}, computed_{0}, hits_{0};
};

template <class T, class W>
void run(const Problem& p, int threads, Parallel parallel) {
  thread_local Scratch memory;
  const Layout l = plan(p, threads);
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
