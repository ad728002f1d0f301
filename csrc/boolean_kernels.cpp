// Kernels on the Boolean cube. Compiled once for each ISA level. Counts are exact; sums of doubles have an order that
// depends neither on the level nor on the number of threads, and no products but with 1 and -1.
#include <algorithm>
#include <cstring>

#include "boolean.h"

namespace lazy::boolean {
namespace LAZY_ISA {
namespace {

constexpr int64_t kNearBytes = 16384;  // part of the transform that stays in the first-level cache
constexpr int64_t kCountWords = 512; // words of one block of a popcount pass
constexpr int64_t kSumWords = 32;    // words (of 64 rows) of one block of a pass with doubles

typedef double v8d __attribute__((vector_size(64)));
typedef float v16f __attribute__((vector_size(64)));
typedef uint64_t v8u __attribute__((vector_size(64)));
typedef int64_t v8i __attribute__((vector_size(64)));
typedef int32_t v16j __attribute__((vector_size(64)));

// One register of 64 bytes: its type, its number of lanes, and the levels of the transform within it.
template <class T> struct Lanes;
template <> struct Lanes<double> { using V = v8d; using I = v8i; static constexpr int kCount = 8, kLevels = 3; };
template <> struct Lanes<float> { using V = v16f; using I = v16j; static constexpr int kCount = 16, kLevels = 4; };

template <class V, class T> inline V load(const T* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
template <class V, class T> inline void store(T* p, const V& v) { std::memcpy(p, &v, sizeof v); }

// The levels between neighbours of one register.
inline v8d within(v8d v) {
  v = __builtin_shuffle(v, v8i{1, 0, 3, 2, 5, 4, 7, 6}) + v * v8d{1, -1, 1, -1, 1, -1, 1, -1};
  v = __builtin_shuffle(v, v8i{2, 3, 0, 1, 6, 7, 4, 5}) + v * v8d{1, 1, -1, -1, 1, 1, -1, -1};
  return __builtin_shuffle(v, v8i{4, 5, 6, 7, 0, 1, 2, 3}) + v * v8d{1, 1, 1, 1, -1, -1, -1, -1};
}

inline v16f within(v16f v) {
  v = __builtin_shuffle(v, v16j{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}) +
      v * v16f{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
  v = __builtin_shuffle(v, v16j{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}) +
      v * v16f{1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1};
  v = __builtin_shuffle(v, v16j{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}) +
      v * v16f{1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1};
  return __builtin_shuffle(v, v16j{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}) +
         v * v16f{1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
}

// A matrix of numbers whose rows lie `stride` numbers apart.
template <class T>
struct Grid {
  T* p;
  int64_t stride;
};

// R levels at once: butterflies along the rows, between 2^R rows at distance h, from one grid into another; with
// kWithin also the levels within a register.
template <int R, bool kWithin, class T>
inline void radix(Grid<T> from, Grid<T> to, int64_t rows, int64_t columns, int64_t h) {
  using V = typename Lanes<T>::V;
  constexpr int kPoints = 1 << R;
  for (int64_t base = 0; base < rows; base += h << R) {
    for (int64_t row = base; row < base + h; ++row) {
      for (int64_t k = 0; k < columns; k += Lanes<T>::kCount) {
        V v[kPoints];
#pragma GCC unroll 16
        for (int j = 0; j < kPoints; ++j) v[j] = load<V>(from.p + (row + j * h) * from.stride + k);
#pragma GCC unroll 4
        for (int step = 1; step < kPoints; step *= 2) {
#pragma GCC unroll 16
          for (int j = 0; j < kPoints; ++j) {
            if (j & step) continue;
            const V a = v[j], b = v[j + step];
            v[j] = a + b;
            v[j + step] = a - b;
          }
        }
#pragma GCC unroll 16
        for (int j = 0; j < kPoints; ++j) store(to.p + (row + j * h) * to.stride + k, kWithin ? within(v[j]) : v[j]);
      }
    }
  }
}

template <bool kWithin, class T>
void some_levels(int levels, Grid<T> from, Grid<T> to, int64_t rows, int64_t columns, int64_t h) {
  switch (levels) {
    case 4: radix<4, kWithin>(from, to, rows, columns, h); break;
    case 3: radix<3, kWithin>(from, to, rows, columns, h); break;
    case 2: radix<2, kWithin>(from, to, rows, columns, h); break;
    case 1: radix<1, kWithin>(from, to, rows, columns, h); break;
    default: radix<0, kWithin>(from, to, rows, columns, h);
  }
}

// As few steps as there can be, of at most four levels, as even as can be.
inline int next_step(int left) { return (left + (left + 3) / 4 - 1) / ((left + 3) / 4); }

// Levels [from, to) of a contiguous array of `length` numbers, at from = kLevels those within a register too.
template <class T>
void levels_between(T* x, int64_t length, int from, int to) {
  do {
    const int64_t h = int64_t{1} << from;
    const int now = from < to ? next_step(to - from) : 0;
    const Grid<T> whole{x, h};
    if (from == Lanes<T>::kLevels)
      some_levels<true>(now, whole, whole, length / h, h, 1);
    else
      some_levels<false>(now, whole, whole, length / h, h, 1);
    from += now;
  } while (from < to);
}

template <class T>
void transform(T* x, int levels) {
  const int64_t length = int64_t{1} << levels;
  if (levels < Lanes<T>::kLevels) {
    for (int64_t h = 1; h < length; h *= 2)
      for (int64_t i = 0; i < length; ++i)
        if (!(i & h)) {
          const T a = x[i], b = x[i + h];
          x[i] = a + b;
          x[i + h] = a - b;
        }
    return;
  }
  constexpr int64_t kNear = kNearBytes / sizeof(T);
  const int64_t block = std::min(length, kNear);
  const int near = __builtin_ctzll(static_cast<uint64_t>(block));
  for (int64_t b = 0; b < length; b += block) levels_between(x + b, block, Lanes<T>::kLevels, near);
  if (near < levels) levels_between(x, length, near, levels);
}

// The transform along a strided axis. Between its first and its last step the tile lies in a buffer: in place its rows
// would all fall into the same few cache sets.
template <class T>
void strided(T* x, const Tile& t, T* buffer) {
  const int levels = __builtin_ctzll(static_cast<uint64_t>(t.rows));
  const Grid<T> there{x + t.column, t.stride}, here{buffer, t.columns};
  for (int done = 0; done < levels;) {
    const int now = next_step(levels - done);
    const Grid<T>&in = done ? here : there, &out = done + now < levels ? here : there;
    some_levels<false>(now, in, out, t.rows, t.columns, int64_t{1} << done);
    done += now;
  }
}

inline int64_t ones_of_xor(const uint64_t* a, const uint64_t* b, int64_t words) {
  uint64_t sum = 0;
  for (int64_t w = 0; w < words; ++w) sum += static_cast<uint64_t>(__builtin_popcountll(a[w] ^ b[w]));
  return static_cast<int64_t>(sum);
}

inline void xor_into(uint64_t* out, const uint64_t* a, const uint64_t* b, int64_t words) {
  for (int64_t w = 0; w < words; ++w) out[w] = a[w] ^ b[w];
}

// Eight rows with the sign that bits [shift, shift + 8) of a word give them.
inline v8d signed_rows(uint64_t word, int shift, v8d y) {
  const v8u lanes = {63, 62, 61, 60, 59, 58, 57, 56};
  const v8u all = v8u{} + (word >> shift);
  const v8u sign = (all << lanes) & (v8u{} + 0x8000000000000000ull);
  return reinterpret_cast<v8d>(reinterpret_cast<v8u>(y) ^ sign);
}

// Walks the subsets {first, second, ...} by adding larger and larger elements. `leaf(index, a, b)` gets the place of a
// subset and two word columns whose XOR is the subset's column.
template <int64_t kWords, class Leaf>
class Walk {
 public:
  Walk(const Columns& c, const Order& o, int64_t word0, int64_t words, Leaf& leaf)
      : c_(c), o_(o), word0_(word0), words_(words), leaf_(leaf) {}

  void from(int64_t first, int64_t second) {
    if (second < 0) {
      leaf_(place(1, first), zero_, column(first));
      return;
    }
    leaf_(place(1, first, 2, second), column(first), column(second));
    if (o_.degree > 2) {
      xor_into(stack_[2], column(first), column(second), words_);
      deeper(2, second, choose(first, 1) + choose(second, 2));
    }
  }

  void all() {
    leaf_(int64_t{0}, zero_, zero_);
    for (int64_t first = 0; first < c_.n && o_.degree > 0; ++first) {
      from(first, -1);
      for (int64_t second = first + 1; second < c_.n && o_.degree > 1; ++second) from(first, second);
    }
  }

 private:
  void deeper(int size, int64_t last, int64_t rank) {
    const int next = size + 1;
    for (int64_t t = last + 1; t < c_.n; ++t) {
      const int64_t r = rank + choose(t, next);
      leaf_(o_.offset[next] + r, stack_[size], column(t));
      if (next < o_.degree) {
        xor_into(stack_[next], stack_[size], column(t), words_);
        deeper(next, t, r);
      }
    }
  }

  int64_t choose(int64_t t, int i) const { return o_.binomial[t * (o_.degree + 1) + i]; }
  int64_t place(int size, int64_t t) const { return o_.offset[size] + choose(t, 1); }
  int64_t place(int, int64_t s, int size, int64_t t) const { return o_.offset[size] + choose(s, 1) + choose(t, 2); }
  const uint64_t* column(int64_t t) const { return c_.bits + t * c_.words + word0_; }

  const Columns& c_;
  const Order& o_;
  int64_t word0_, words_;
  Leaf& leaf_;
  alignas(64) uint64_t zero_[kWords] = {};
  alignas(64) uint64_t stack_[kMaxDegree + 1][kWords];
};

void moments(const Columns& c, const Order& o, int64_t first, int64_t second, int32_t* out) {
  for (int64_t w = 0; w < c.words; w += kCountWords) {
    const int64_t words = std::min(kCountWords, c.words - w);
    const int32_t rows = static_cast<int32_t>(std::min(words * 64, c.rows - w * 64));
    auto leaf = [&](int64_t place, const uint64_t* a, const uint64_t* b) {
      out[place] += rows - 2 * static_cast<int32_t>(ones_of_xor(a, b, words));
    };
    Walk<kCountWords, decltype(leaf)>(c, o, w, words, leaf).from(first, second);
  }
}

// y is padded with zeros to whole words.
void analysis(const Columns& c, const Order& o, int64_t first, int64_t second, const double* y, double* out) {
  for (int64_t w = 0; w < c.words; w += kSumWords) {
    const int64_t words = std::min(kSumWords, c.words - w);
    const double* rows = y + w * 64;
    auto leaf = [&](int64_t place, const uint64_t* a, const uint64_t* b) {
      v8d sum[4] = {};
      for (int64_t k = 0; k < words; ++k) {
        const uint64_t word = a[k] ^ b[k];
#pragma GCC unroll 8
        for (int g = 0; g < 8; ++g) sum[g & 3] += signed_rows(word, 8 * g, load<v8d>(rows + k * 64 + 8 * g));
      }
      const v8d s = (sum[0] + sum[1]) + (sum[2] + sum[3]);
      out[place] += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    };
    Walk<kSumWords, decltype(leaf)>(c, o, w, words, leaf).from(first, second);
  }
}

// out is padded to whole words.
void synthesis(const Columns& c, const Order& o, int64_t begin, int64_t end, const double* coefficient, double* out) {
  for (int64_t w = begin; w < end; w += kSumWords) {
    const int64_t words = std::min(kSumWords, end - w);
    alignas(64) double sums[kSumWords * 64] = {};
    auto leaf = [&](int64_t place, const uint64_t* a, const uint64_t* b) {
      const double value = coefficient[place];
      if (value == 0) return;
      const v8d v = v8d{} + value;
      for (int64_t k = 0; k < words; ++k) {
        const uint64_t word = a[k] ^ b[k];
#pragma GCC unroll 8
        for (int g = 0; g < 8; ++g) {
          double* p = sums + k * 64 + 8 * g;
          store(p, load<v8d>(p) + signed_rows(word, 8 * g, v));
        }
      }
    };
    Walk<kSumWords, decltype(leaf)>(c, o, w, words, leaf).all();
    std::memcpy(out + w * 64, sums, words * 64 * sizeof(double));
  }
}

void distances(const uint64_t* row, const uint64_t* rows, int64_t count, int64_t words, int32_t* out) {
  if (words == 1) {
    for (int64_t j = 0; j < count; ++j) out[j] = __builtin_popcountll(row[0] ^ rows[j]);
    return;
  }
  for (int64_t j = 0; j < count; ++j) out[j] = static_cast<int32_t>(ones_of_xor(row, rows + j * words, words));
}

// Place of the symmetric difference of two sorted sets; absent elements are -1 at the end.
inline int64_t difference(const int16_t* a, const int16_t* b, int64_t degree, const Order& o) {
  int64_t i = 0, j = 0, rank = 0;
  int size = 0;
  const int64_t width = o.degree + 1;
  while (true) {
    const int x = i < degree ? a[i] : -1, y = j < degree ? b[j] : -1;
    if (x < 0 && y < 0) return o.offset[size] + rank;
    if (x == y) { ++i; ++j; continue; }
    const bool left = y < 0 || (x >= 0 && x < y);
    rank += o.binomial[(left ? x : y) * width + ++size];
    left ? ++i : ++j;
  }
}

void gram(const int16_t* subsets, const Order& o, const int32_t* moments, int64_t size, int64_t degree, int64_t row0,
          int64_t row1, int64_t column0, int64_t column1, float* out) {
  for (int64_t r = row0; r < row1; ++r)
    for (int64_t c = column0; c < std::min(column1, r + 1); ++c)
      out[r * size + c] = out[c * size + r] =
          static_cast<float>(moments[difference(subsets + r * degree, subsets + c * degree, degree, o)]);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels table = {transform<float>, transform<double>, strided<float>, strided<double>, moments,
                                analysis,         synthesis,         distances,      gram};
  return table;
}

}  // namespace LAZY_ISA
}  // namespace lazy::boolean
