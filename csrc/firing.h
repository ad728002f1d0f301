// What the two passes of a sparse block hand over (the pairs of neuron and token that fired), how workers share them, and
// the second pass itself.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "simd.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {

// The pairs of one (tile, panel) that fired, neuron by neuron.
struct Fired {
  int32_t neurons;                        // how many neurons fired at least once
  int32_t pairs;
  int32_t index[kPanel];                  // their positions in the panel
  uint8_t count[kPanel];                  // tokens each fired for
  // followed in memory by: float value[kPanel * tile], uint8_t token[kPanel * tile], uint8_t neuron[kPanel * tile]
};

struct Layout {
  int64_t tile;          // tokens in a full tile
  int64_t stretch;       // panels in one unit of work: long enough to stream, short enough to share
  int64_t tiles, panels;
  int64_t columns, column_tasks;
  size_t fired_bytes;    // one Fired with its tails
  bool independent;      // each tile start to end by one worker, instead of all workers on the same tile

  // alone_from: tokens from which each tile is one worker's; 0 for what suits weights that are not quantised. Shares of
  // columns are multiples of `step`, and as many as `most` where that is given.
  Layout(int64_t tokens, int64_t d_hidden, int64_t d_out, int threads, int64_t alone_from = 0, int64_t step = 32,
         int64_t most = 0) {
    independent = tokens >= (alone_from > 0 ? alone_from : 32 * 2 * static_cast<int64_t>(threads));
    const int64_t wanted = independent ? (tokens + 2 * threads - 1) / (2 * threads) : tokens;
    tile = std::clamp<int64_t>(wanted, 1, kMaxTile);
    tiles = (tokens + tile - 1) / tile;
    panels = (d_hidden + kPanel - 1) / kPanel;
    stretch = independent ? panels : std::clamp<int64_t>(panels / (8 * threads), 1, 8);
    if (most == 0) most = std::max<int64_t>(32, kAccumulators / tile / 32 * 32);
    int64_t tasks = independent ? 1 : threads;
    while (up_to((d_out + tasks - 1) / tasks, step) > most) tasks += independent ? 1 : threads;
    columns = up_to((d_out + tasks - 1) / tasks, step);
    column_tasks = (d_out + columns - 1) / columns;
    fired_bytes = up_to(sizeof(Fired) + kPanel * tile * (sizeof(float) + 2), 64);
  }

  int64_t units() const { return (panels + stretch - 1) / stretch; }

  Fired* fired(char* lists, int64_t panel) const { return reinterpret_cast<Fired*>(lists + panel * fired_bytes); }
};

inline float* values_of(Fired* f) { return reinterpret_cast<float*>(f + 1); }
inline uint8_t* tokens_of(Fired* f, int64_t tile) {
  return reinterpret_cast<uint8_t*>(values_of(f) + kPanel * tile);
}

inline uint8_t* neurons_of(Fired* f, int64_t tile) { return tokens_of(f, tile) + kPanel * tile; }

// Adds one pair to a list; `kept` counts those of neuron i.
inline void enter(Fired* out, int64_t tile, int i, int* kept, int token, float value) {
  values_of(out)[out->pairs] = value;
  neurons_of(out, tile)[out->pairs] = static_cast<uint8_t>(i);
  tokens_of(out, tile)[out->pairs++] = static_cast<uint8_t>(token);
  if ((*kept)++ == 0) out->index[out->neurons] = i;
}

inline void keep(Fired* out, int64_t tile, int i, int* kept, int token, float value) {
  if (value != 0.f) enter(out, tile, i, kept, token, value);  // NaN is kept
}

#if defined(__AVX512F__)
template <class T>
LAZY_INLINE __m512 rounded16(__m512 x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {  // bfloat16, as narrow() does it
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i whole = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(whole, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
}
#endif

// As keep(), for the n values relu(z + bias) of one neuron, rounded to T (float or bf16); z too where that is asked.
template <class T>
void enter_positive(Fired* out, int64_t tile, int i, int* kept, const uint8_t* token, const float* z, float bias, int n,
                    bool rounds_twice) {
#if defined(__AVX512F__)
  const int32_t before = out->pairs;
  for (int a = 0; a < n; a += 16) {
    const __mmask16 there = static_cast<__mmask16>(n - a >= 16 ? 0xffff : (1 << (n - a)) - 1);
    const __m512 dot = _mm512_maskz_loadu_ps(there, z + a);
    const __m512 sum = rounded16<T>(_mm512_add_ps(rounds_twice ? rounded16<T>(dot) : dot, _mm512_set1_ps(bias)));
    // true for NaN, which is kept
    const __mmask16 above = _mm512_mask_cmp_ps_mask(there, sum, _mm512_setzero_ps(), _CMP_NLE_UQ);
    const int count = __builtin_popcount(above);
    const __mmask16 stored = static_cast<__mmask16>((1 << count) - 1);
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there, token + a));
    _mm512_mask_storeu_ps(values_of(out) + out->pairs, stored, _mm512_maskz_compress_ps(above, sum));
    _mm_mask_storeu_epi8(tokens_of(out, tile) + out->pairs, stored,
                         _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(above, wide)));
    _mm_mask_storeu_epi8(neurons_of(out, tile) + out->pairs, stored, _mm_set1_epi8(static_cast<char>(i)));
    out->pairs += count;
  }
  *kept = out->pairs - before;
  if (*kept) out->index[out->neurons] = i;
#else
  for (int a = 0; a < n; ++a) {
    const float sum = rounded<T>((rounds_twice ? rounded<T>(z[a]) : z[a]) + bias);
    if (!(sum <= 0.f)) enter(out, tile, i, kept, token[a], sum);
  }
#endif
}

inline void close(Fired* out, int kept) {
  if (kept) out->count[out->neurons++] = static_cast<uint8_t>(kept);
}

// A piece of a row of `down`, W a number.
template <class W>
struct PlainRow {
  const W* at;

  LAZY_INLINE v16f load(int64_t k) const { return load16(at + k); }
  LAZY_INLINE float one(int64_t k) const { return to_float(at[k]); }
  static constexpr int64_t kLine = 64 / sizeof(W);  // columns of a cache line

  LAZY_INLINE void fetch(int64_t k) const {
    if (k % kLine == 0) __builtin_prefetch(at + k);
  }
};

// One row of `down` that is wanted, with the tokens it is added to.
template <class Row>
struct Wanted {
  Row row;
  const float* value;
  const uint8_t* token;
  int count;
};

// Columns [c0, c0 + width) of a tile's output: what fired, times its rows of `down`.
template <class Row>
class Accumulation {
 public:
  // sums: (tokens, stride), zero or begun. Strides that are a power of two would share cache sets.
  Accumulation(float* sums, int64_t stride, int64_t width, int64_t tokens)
      : sums_(sums), stride_(stride), width_(width), tokens_(tokens) {}

  // Rows are fetched a few ahead.
  void add(const std::vector<Wanted<Row>>& wanted) {
    const size_t n = wanted.size();
    add_all(wanted, [&](size_t e, int64_t k) { wanted[e + kRowsAhead < n ? e + kRowsAhead : e].row.fetch(k); });
  }

  // Rows are here already; for each of their cache lines `more` fetches one of what comes next.
  template <class More>
  void add_fetched(const std::vector<Wanted<Row>>& wanted, More& more) {
    add_all(wanted, [&](size_t, int64_t k) { if (k % Row::kLine == 0) more(); });
  }

 private:
  static constexpr size_t kRowsAhead = 4;

  template <class Ahead>
  LAZY_INLINE void add_all(const std::vector<Wanted<Row>>& wanted, const Ahead& ahead) {
    const size_t n = wanted.size();
    size_t e = 0;
    if (tokens_ == 1)
      for (; e + 4 <= n; e += 4) add_four(&wanted[e], e, ahead);
    for (; e < n; ++e) add_row(wanted[e], e, ahead);
  }

  // y[token] += value * row for the tokens that the neuron fired for; pieces of the row stay in registers.
  template <class Ahead>
  void add_row(const Wanted<Row>& entry, size_t e, const Ahead& ahead) {
    int64_t k = 0;
    for (; k + 128 <= width_; k += 128) add_piece<8>(entry, e, ahead, k);
    if (k + 64 <= width_) { add_piece<4>(entry, e, ahead, k); k += 64; }
    if (k + 32 <= width_) { add_piece<2>(entry, e, ahead, k); k += 32; }
    if (k + 16 <= width_) { add_piece<1>(entry, e, ahead, k); k += 16; }
    for (; k < width_; ++k)
      for (int a = 0; a < entry.count; ++a) sums_[entry.token[a] * stride_ + k] += entry.value[a] * entry.row.one(k);
  }

  template <int U, class Ahead>
  LAZY_INLINE void add_piece(const Wanted<Row>& entry, size_t e, const Ahead& ahead, int64_t k) {
    v16f w[U];
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      w[u] = entry.row.load(k + 16 * u);
      ahead(e, k + 16 * u);
    }
    for (int a = 0; a < entry.count; ++a) {
      float* y = sums_ + entry.token[a] * stride_ + k;
      const v16f v = splat(entry.value[a]);
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
        const v16f sum = load16(y + 16 * u) + v * w[u];
        store(y + 16 * u, sum);
      }
    }
  }

  // One token: four rows together, so that the running sum is read and written once for four rows.
  template <class Ahead>
  void add_four(const Wanted<Row>* entry, size_t e, const Ahead& ahead) {
    constexpr int64_t kLine = Row::kLine;
    const v16f v[4] = {splat(*entry[0].value), splat(*entry[1].value), splat(*entry[2].value), splat(*entry[3].value)};
    const Row row[4] = {entry[0].row, entry[1].row, entry[2].row, entry[3].row};
    int64_t k = 0;
    const auto sixteen = [&](int64_t c) __attribute__((always_inline)) {
      v16f sum = load16(sums_ + c);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum += v[j] * row[j].load(c);
      store(sums_ + c, sum);
    };
    for (; k + 16 <= width_; k += kLine) {
      for (size_t j = 0; j < 4; ++j) ahead(e + j, k);
      if (k + kLine > width_) break;
#pragma GCC unroll 4
      for (int64_t part = 0; part < kLine; part += 16) sixteen(k + part);
    }
    for (; k + 16 <= width_; k += 16) sixteen(k);
    for (; k < width_; ++k)
      for (int j = 0; j < 4; ++j) sums_[k] += *entry[j].value * row[j].one(k);
  }

  float* sums_;
  int64_t stride_, width_, tokens_;
};

// The rows of `down` that the panels [begin, end) of a tile want. `row(neuron, c0)` names one.
template <class Row, class RowAt>
void gather(const Layout& l, char* lists, int64_t begin, int64_t end, int64_t c0, const RowAt& row,
            std::vector<Wanted<Row>>& wanted) {
  wanted.clear();
  for (int64_t panel = begin; panel < end; ++panel) {
    Fired* f = l.fired(lists, panel);
    const float* value = values_of(f);
    const uint8_t* token = tokens_of(f, l.tile);
    for (int32_t e = 0; e < f->neurons; ++e) {
      wanted.push_back({row(panel * kPanel + f->index[e], c0), value, token, f->count[e]});
      value += f->count[e];
      token += f->count[e];
    }
  }
}

// Second pass: one share of the columns of a tile's output. Sums run over `segment` panels, then over segments.
template <class T, class Row, class RowAt>
void accumulate(const Layout& l, int64_t tile, int64_t task, char* lists, int64_t tokens, int64_t d_out,
                const void* bias_of, void* y_of, int64_t segment, const RowAt& row) {
  const int64_t t0 = tile * l.tile, count = std::min(l.tile, tokens - t0);
  const int64_t c0 = task * l.columns, width = std::min(l.columns, d_out - c0), stride = l.columns + 16;
  const size_t floats = static_cast<size_t>(count * stride);
  auto& wanted = own<Row, std::vector<Wanted<Row>>>();
  alignas(64) float sums[kAccumulators + 16 * kMaxTile], total[kAccumulators + 16 * kMaxTile];
  if (l.panels == 0) std::memset(total, 0, floats * sizeof(float));  // a block without neurons
  for (int64_t begin = 0; begin < l.panels; begin += segment) {
    gather(l, lists, begin, std::min(begin + segment, l.panels), c0, row, wanted);
    if (begin > 0 && wanted.empty()) continue;
    float* part = begin == 0 ? total : sums;
    std::memset(part, 0, floats * sizeof(float));
    Accumulation<Row>(part, stride, width, count).add(wanted);
    if (begin > 0)
      for (size_t i = 0; i < floats; ++i) total[i] += sums[i];
  }
  T* y = static_cast<T*>(y_of);
  const T* bias = static_cast<const T*>(bias_of);
  for (int64_t t = 0; t < count; ++t) {
    T* out = y + (t0 + t) * d_out + c0;
    const float* in = total + t * stride;
    for (int64_t k = 0; k < width; ++k) out[k] = narrow(bias ? in[k] + to_float(bias[c0 + k]) : in[k], T{});
  }
}

// Whether blocks have more to do with each token when all its columns are there: finishes(), finish_token(t).
template <class Block>
constexpr bool kFinishes = false;

// Shares the passes of a block among workers: tile after tile by one of them, or all on the same tile. What a worker does
// of it is the block's: prepare(t) and prepare_together() for what is read of tokens, step(way, tile, panel, lists) and
// finish(way) for the first pass, of which `way` is the worker's own state, and second_pass(tile, task, lists).
class TwoPasses {
 public:
  TwoPasses(const Layout& l, int64_t tokens, int threads, char* lists)
      : l_(l), tokens_(tokens), threads_(threads), lists_(lists), units_(l.units(), threads) {}

  static size_t scratch_bytes(const Layout& l, int threads) {
    return static_cast<size_t>((l.independent ? threads : l.tiles) * l.panels) * l.fired_bytes;
  }

  // Any number of threads call this; together they do everything.
  template <class Block, class Way>
  void work(Block& block, Way& way) {
    if (l_.independent) return whole_tiles(block, way);
    block.prepare_together();
    const int64_t units = l_.units();
    int64_t mine = 0;
    Ranges::Seat seat = units_.seat();
    for (int64_t u; (u = units_.take(seat)) >= 0; ++mine) {
      const int64_t end = std::min((u + 1) * l_.stretch, l_.panels);
      for (int64_t panel = u * l_.stretch; panel < end; ++panel)
        for (int64_t tile = 0; tile < l_.tiles; ++tile) block.step(way, tile, panel, lists_of(tile));
    }
    block.finish(way);
    first_.finished(mine);
    first_.wait(units);
    second_.share(l_.tiles * l_.column_tasks, [&](int64_t u) {
      const int64_t tile = u / l_.column_tasks;
      block.second_pass(tile, u % l_.column_tasks, lists_of(tile));
    });
    if constexpr (kFinishes<Block>) {
      if (!block.finishes()) return;
      second_.wait(l_.tiles * l_.column_tasks);
      third_.share(tokens_, [&](int64_t t) { block.finish_token(t); });
    }
  }

 private:
  template <class Block, class Way>
  void whole_tiles(Block& block, Way& way) {
    const int64_t slot = workers_.fetch_add(1, std::memory_order_relaxed);
    if (slot >= threads_) return;
    char* mine = lists_of(slot);
    first_.share(l_.tiles, [&](int64_t tile) {
      for (int64_t t = tile * l_.tile; t < std::min((tile + 1) * l_.tile, tokens_); ++t) block.prepare(t);
      for (int64_t panel = 0; panel < l_.panels; ++panel) block.step(way, tile, panel, mine);
      block.finish(way);
      if constexpr (kFinishes<Block>) block.second_pass_alone(tile, mine);
      else for (int64_t c = 0; c < l_.column_tasks; ++c) block.second_pass(tile, c, mine);
      if constexpr (kFinishes<Block>)
        for (int64_t t = tile * l_.tile; t < std::min((tile + 1) * l_.tile, tokens_); ++t) block.finish_token(t);
    });
  }

  char* lists_of(int64_t slot) const { return lists_ + slot * l_.panels * static_cast<int64_t>(l_.fired_bytes); }

  const Layout& l_;
  int64_t tokens_;
  int threads_;
  char* lists_;
  Counter first_, second_, third_;
  Ranges units_;  // of the first pass, where all work on the same tile
  std::atomic<int64_t> workers_{0};
};

}  // namespace LAZY_ISA
}  // namespace lazy
