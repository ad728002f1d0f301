// What the two passes of a sparse block hand over (the pairs of neuron and token that fired), and how workers share them.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>

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
