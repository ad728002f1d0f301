// A plain block in int8, activations on grids as fine as products take them for nothing: arithmetic is what many tokens cost. Every
// product of the first layer is both what decides whether its neuron fires, and its value. Compiled for the extension's level.
//
// Of the Problem, sketch holds the first layer's own rows, certificate.scale and .bias a number a neuron; planes is 1;
// down_rows are q + 128, 64 divides their stride; x, biases and y are float32; there is no gate.
#include <algorithm>
#include <atomic>
#include <vector>

#include "../activation.h"
#include "../finish.h"
#include "../work.h"
#include "panels_bytes.h"
#include "panels_words.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

class Panels {
 public:
  Panels(const Problem& p, const float* down_scale, int threads, char* scratch)
      : p_(p), down_scale_(down_scale), tile_(tile_of(p, threads)), tiles_((p.tokens + tile_ - 1) / tile_), panels_(panels_of(p)),
        ranges_(ranges_of(p, threads)), live_(live_of(p, threads)),
        up_{p, take<Token>(scratch, p.tokens), take<int8_t>(scratch, p.tokens * FirstLayer::bytes_of(p))}, down_(p) {
    lists_ = take<List>(scratch, live_ * ranges_);
    const int64_t most = room(range_panels());
    for (int64_t k = 0; k < live_ * ranges_; ++k) lists_[k] = {take<int32_t>(scratch, most), take<float>(scratch, most), 0};
  }

  static size_t scratch_bytes(const Problem& p, int threads) {
    const int64_t ranges = ranges_of(p, threads), lists = live_of(p, threads) * ranges;
    const int64_t most = room((panels_of(p) + ranges - 1) / ranges);
    return up_to(p.tokens * sizeof(Token), 64) + up_to(p.tokens * FirstLayer::bytes_of(p), 64) + up_to(lists * sizeof(List), 64) +
           lists * 2 * up_to(most * sizeof(float), 64) + 64;
  }

  // Any number of threads call this; together they do everything.
  void work() {
    int64_t hits = 0;
    if (ranges_ == 1) {  // tile after tile, each by one worker
      const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
      if (slot * tile_ >= live_) return;
      first_.share(tiles_, [&](int64_t tile) {
        const int64_t t0 = tile * tile_, count = std::min(tile_, p_.tokens - t0);
        for (int64_t t = t0; t < t0 + count; ++t) up_.prepare(t);
        look(t0, count, 0, lists_ + slot * tile_);
        for (int64_t t = 0; t < count; ++t) hits += answer(t0 + t, lists_ + slot * tile_ + t);
      });
    } else {
      zeroth_.share(p_.tokens, [&](int64_t t) { up_.prepare(t); });
      zeroth_.wait(p_.tokens);
      first_.share(tiles_ * ranges_, [&](int64_t u) {  // lists of a range lie together: (range, token)
        const int64_t t0 = u / ranges_ * tile_, range = u % ranges_;
        look(t0, std::min(tile_, p_.tokens - t0), range, lists_ + range * live_ + t0);
      });
      first_.wait(tiles_ * ranges_);
      second_.share(p_.tokens, [&](int64_t t) { hits += answer(t, lists_ + t); });
    }
    hits_.fetch_add(hits, std::memory_order_relaxed);
  }

  int64_t fired() const { return hits_.load(); }

 private:
  template <class U>
  static U* take(char*& scratch, int64_t n) {
    U* p = reinterpret_cast<U*>(scratch);
    scratch += up_to(n * static_cast<int64_t>(sizeof(U)), 64);
    return p;
  }

  static int64_t panels_of(const Problem& p) { return (p.d_hidden + kPanel - 1) / kPanel; }

  // Few tokens share the panels among workers; more share the tokens.
  static int64_t ranges_of(const Problem& p, int threads) {
    return p.tokens >= 8 * threads || threads == 1 ? 1 : std::clamp<int64_t>(panels_of(p), 1, 4 * threads);
  }

  // As many tiles a worker, of tokens as alike, as the rest allows.
  static int64_t tile_of(const Problem& p, int threads) {
    if (p.tokens < 8 * threads) return std::clamp<int64_t>(p.tokens, 1, kTokens);
    const int64_t tiles = up_to((p.tokens + kTokens - 1) / kTokens, threads);
    return up_to((p.tokens + tiles - 1) / tiles, kRows);
  }

  static int64_t live_of(const Problem& p, int threads) {
    return ranges_of(p, threads) == 1 ? tile_of(p, threads) * threads : p.tokens;
  }

  // Entries of a list; vectors are stored whole.
  static int64_t room(int64_t panels) { return (panels + 1) * kPanel; }

  int64_t range_panels() const { return (panels_ + ranges_ - 1) / ranges_; }

  // Which neurons of a range of panels may fire, for the tokens of a tile.
  void look(int64_t t0, int64_t count, int64_t range, List* lists) {
    for (int64_t t = 0; t < count; ++t) lists[t].count = 0;
    const int64_t begin = range * range_panels();
    up_.look(t0, count, begin, std::min(begin + range_panels(), panels_), lists);
  }

  // How many neurons fired.
  int64_t answer(int64_t t, const List* lists) {
    const int64_t fired = add(t, lists);
    if (p_.finish) finish_row(*p_.finish, static_cast<const float*>(p_.y) + t * p_.d_out, t, p_.d_out);
    return fired;
  }

  // The output of a token: what fires, times its rows of `down`. lists: one a range, live_ apart.
  int64_t add(int64_t t, const List* lists) {
    if (ranges_ == 1) return add_listed(t, *lists);
    thread_local std::vector<int32_t> neurons;
    thread_local std::vector<float> values;
    List all = {nullptr, nullptr, 0};
    for (int64_t r = 0; r < ranges_; ++r) all.count += lists[r * live_].count;
    neurons.resize(static_cast<size_t>(all.count + 16));
    values.resize(static_cast<size_t>(all.count + 16));
    all.neuron = neurons.data();
    all.z = values.data();
    for (int64_t r = 0, at = 0; r < ranges_; at += lists[r++ * live_].count) {
      const List& one = lists[r * live_];
      std::memcpy(all.neuron + at, one.neuron, static_cast<size_t>(one.count) * sizeof(int32_t));
      std::memcpy(all.z + at, one.z, static_cast<size_t>(one.count) * sizeof(float));
    }
    return add_listed(t, all);
  }

  // Lists have room for a vector behind their end.
  int64_t add_listed(int64_t t, const List& fired) {
    const int64_t n = fired.count, padded = up_to(n, 16);
    float* const values = fired.z;
    if (p_.activation == Activation::offset_gelu) {
      for (int64_t k = 0; k < n; k += 16) {
        const v16f z = load16(values + k);
        store(values + k, select(z <= p_.parameter0, splat(0.f), smooth_gelu(z) - p_.parameter1));
      }
    } else if (p_.activation != Activation::relu) {  // of which what was listed is its own value
      for (int64_t k = 0; k < n; ++k) values[k] = activate<float>(p_, values[k]);
    }
    for (int64_t k = n; k < padded; ++k) {
      fired.neuron[k] = 0;
      values[k] = 0.f;
    }
    v16f top = {}, bad = {};
    for (int64_t k = 0; k < padded; k += 16) {
      const v16f h = load16(values + k) * scales(fired.neuron + k);
      const v16f size = select(h < 0.f, -h, h);
      top = select(size > top, size, top);
      bad += h * 0.f;
      store(values + k, h);
    }
    float* y = static_cast<float*>(p_.y) + t * p_.d_out;
    const float most = largest_lane(top);
    if (reduce(bad) == 0.f && (most == 0.f || (most > kLeast && most < kMost))) down_.sum_on_grid(fired, most, y);
    else down_.sum(fired, y);
    return n;
  }

  static float largest_lane(v16f v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(reinterpret_cast<__m512>(v));
#else
    float most = 0.f;
    for (int lane = 0; lane < 16; ++lane) most = std::max(most, v[lane]);
    return most;
#endif
  }

  v16f scales(const int32_t* neuron) const {
#if defined(__AVX512F__)
    return reinterpret_cast<v16f>(_mm512_i32gather_ps(_mm512_loadu_si512(neuron), down_scale_, 4));
#else
    float out[16];
    for (int l = 0; l < 16; ++l) out[l] = down_scale_[neuron[l]];
    return load16(out);
#endif
  }

  const Problem& p_;
  const float* down_scale_;
  const int64_t tile_, tiles_, panels_, ranges_, live_;
  const FirstLayer up_;
  const SecondLayer down_;
  List* lists_;
  Counter zeroth_, first_, second_;
  std::atomic<int64_t> workers_{0}, hits_{0};
};

}  // namespace

void panels(const Problem& p, const float* down_scale, int threads, Parallel parallel) {
  thread_local Scratch memory;
  Panels run(p, down_scale, threads, memory.at_least(Panels::scratch_bytes(p, threads)));
  if (threads == 1) run.work();
  else parallel(threads, [](void* context) { static_cast<Panels*>(context)->work(); }, &run);
  p.counts[0] = p.counts[1] = run.fired();
}

}  // namespace LAZY_ISA
}  // namespace lazy
