// Products with a sparse hidden activation: its rows times a matrix, its columns times one, and its values alone.
#include "fired.h"

#include <algorithm>
#include <vector>

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

// Vectors of an output row that are summed in registers.
#if defined(__AVX512F__)
constexpr int kWide = 24;
#elif defined(__AVX2__)
constexpr int kWide = 6;
#else
constexpr int kWide = 3;
#endif

// 64 bits of a row from neuron `from`, a multiple of 64, on; what lies behind `end` is left out.
LAZY_INLINE uint64_t word_of(const uint8_t* row, int64_t from, int64_t end) {
  uint64_t word = 0;
  std::memcpy(&word, row + from / 8, static_cast<size_t>(std::min<int64_t>(64, end - from) + 7) / 8);
  return word;
}

// Calls f(neuron) for every bit of a row from `begin`, a multiple of 64, up to `end`.
template <class F>
LAZY_INLINE void over_bits(const uint8_t* row, int64_t begin, int64_t end, const F& f) {
  for (int64_t from = begin; from < end; from += 64)
    for (uint64_t word = word_of(row, from, end); word; word &= word - 1) f(from + __builtin_ctzll(word));
}

// Calls f<B>(column) for blocks of 16 B columns, as wide as registers allow.
template <int B, class F>
LAZY_INLINE int64_t blocks_of(int64_t column, int64_t width, const F& f) {
  for (; column + 16 * B <= width; column += 16 * B) f.template operator()<B>(column);
  return column;
}

template <class F>
LAZY_INLINE void over_columns(int64_t width, const F& f) {
  int64_t c = blocks_of<kWide>(0, width, f);
  if constexpr (kWide > 12) c = blocks_of<12>(c, width, f);
  if constexpr (kWide > 4) c = blocks_of<4>(c, width, f);
  blocks_of<1>(c, width, f);
}

template <int B>
LAZY_INLINE void load(v16f (&sum)[B], const float* p) {
#pragma GCC unroll 24
  for (int b = 0; b < B; ++b) sum[b] = load16(p + 16 * b);
}

template <int B>
LAZY_INLINE void store(const v16f (&sum)[B], float* p) {
#pragma GCC unroll 24
  for (int b = 0; b < B; ++b) lazy::LAZY_ISA::store(p + 16 * b, sum[b]);
}

template <int B>
LAZY_INLINE void add(v16f (&sum)[B], float value, const float* p) {
  const v16f v = splat(value);
#pragma GCC unroll 24
  for (int b = 0; b < B; ++b) sum[b] += v * load16(p + 16 * b);
}

// One chunk of tokens: a panel of rows is read for all of them before the next.
void rows_of(const FiredProblem& p, int64_t first, int64_t last) {
  over_columns(p.width, [&]<int B>(int64_t column) {
    int64_t at[kFiredTokens];
    for (int64_t t = first; t < last; ++t) at[t - first] = p.starts[t];
    for (int64_t panel = 0; panel == 0 || panel < p.neurons; panel += kFiredNeurons) {
      const int64_t end = std::min(p.neurons, panel + kFiredNeurons);
      for (int64_t t = first; t < last; ++t) {
        float* out = p.out + t * p.width + column;
        v16f sum[B] = {};
        if (panel) load(sum, out);
        const float* values = p.values + at[t - first];
        const float* const begin = values;
        over_bits(p.bits + t * p.bytes, panel, end, [&](int64_t j) {
          add<B>(sum, *values++, p.rows + j * p.width + column);
        });
        at[t - first] += values - begin;
        if (panel == 0 || values != begin) store<B>(sum, out);
      }
    }
  });
}

void rows(const FiredProblem& p, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kFiredTokens) rows_of(p, first, std::min(end, first + kFiredTokens));
}

// The pairs of a chunk of tokens and a panel of neurons, neuron by neuron.
struct Pairs {
  std::vector<int32_t> starts, tokens, next;
  std::vector<int64_t> places;

  void find(const FiredProblem& p, int64_t first, int64_t last, int64_t begin, int64_t end) {
    starts.assign(static_cast<size_t>(end - begin) + 1, 0);
    for (int64_t t = first; t < last; ++t)
      over_bits(p.bits + t * p.bytes, begin, end, [&](int64_t j) { ++starts[static_cast<size_t>(j - begin) + 1]; });
    for (size_t j = 1; j < starts.size(); ++j) starts[j] += starts[j - 1];
    next.assign(starts.begin(), starts.end() - 1);
    tokens.resize(static_cast<size_t>(starts.back()));
    places.resize(tokens.size());
    for (int64_t t = first; t < last; ++t) {
      const uint8_t* row = p.bits + t * p.bytes;
      int64_t place = p.starts[t];
      for (int64_t from = 0; from < begin; from += 64) place += __builtin_popcountll(word_of(row, from, begin));
      over_bits(row, begin, end, [&](int64_t j) {
        const size_t k = static_cast<size_t>(next[static_cast<size_t>(j - begin)]++);
        tokens[k] = static_cast<int32_t>(t);
        places[k] = place++;
      });
    }
  }
};

template <class F>
void over_panels(const FiredProblem& p, int64_t begin, int64_t end, const F& f) {
  Pairs pairs;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t from = panel * kFiredNeurons, to = std::min(p.neurons, from + kFiredNeurons);
    for (int64_t first = 0; first == 0 || first < p.tokens; first += kFiredTokens) {
      pairs.find(p, first, std::min(p.tokens, first + kFiredTokens), from, to);
      f(pairs, first == 0, from, to);
    }
  }
}

void columns(const FiredProblem& p, int64_t begin, int64_t end) {
  over_panels(p, begin, end, [&](const Pairs& pairs, bool fresh, int64_t from, int64_t to) {
    over_columns(p.width, [&]<int B>(int64_t column) {
      for (int64_t j = from; j < to; ++j) {
        const int32_t k0 = pairs.starts[static_cast<size_t>(j - from)], k1 = pairs.starts[static_cast<size_t>(j - from) + 1];
        if (k0 == k1 && !fresh) continue;
        float* out = p.out + j * p.width + column;
        v16f sum[B] = {};
        if (!fresh) load(sum, out);
        for (int32_t k = k0; k < k1; ++k)
          add<B>(sum, p.values[pairs.places[static_cast<size_t>(k)]],
                 p.dense + pairs.tokens[static_cast<size_t>(k)] * p.width + column);
        store<B>(sum, out);
      }
    });
  });
}

void dots(const FiredProblem& p, int64_t begin, int64_t end) {
  over_panels(p, begin, end, [&](const Pairs& pairs, bool, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; ++j) {
      const float* row = p.rows + j * p.width;
      int32_t k = pairs.starts[static_cast<size_t>(j - from)];
      const int32_t last = pairs.starts[static_cast<size_t>(j - from) + 1];
      const auto take = [&]<int N>() {
        for (; k + N <= last; k += N) {
          const float* x[N];
          float found[N];
          for (int i = 0; i < N; ++i) x[i] = p.dense + pairs.tokens[static_cast<size_t>(k + i)] * p.width;
          lazy::LAZY_ISA::dots<N>(row, x, p.width, found);
          for (int i = 0; i < N; ++i) p.out[pairs.places[static_cast<size_t>(k + i)]] = found[i];
        }
      };
      take.template operator()<8>();
      take.template operator()<4>();
      take.template operator()<1>();
    }
  });
}

}  // namespace

FiredKernels fired_kernels() { return {rows, columns, dots}; }

}  // namespace LAZY_ISA
}  // namespace lazy
