// Kernels on the Boolean cube. Compiled once for each ISA level. Counts are exact; sums of doubles have an order that
// depends neither on the level nor on the number of threads, and no products but with 1 and -1.
#include <algorithm>
#include <cstring>
#include <utility>

#include "boolean.h"

namespace lazy::boolean {
namespace LAZY_ISA {
namespace {

constexpr int64_t kNearBytes = 16384;  // part of the transform that stays in the first-level cache
constexpr int64_t kLineBytes = 64;
constexpr int64_t kPieceBytes = 512;   // of a row between two looks ahead
constexpr int64_t kCountWords = 512; // words of one block of a popcount pass
constexpr int64_t kSumWords = 32;    // words (of 64 rows) of one block of a pass with doubles

typedef double v8d __attribute__((vector_size(64)));
typedef uint64_t v8u __attribute__((vector_size(64)));

// One register of the transform: its type and its number of lanes. Levels run from 0 up, whatever a register holds, so
// that every ISA level, every number of threads and the definition add in the same order.
#if defined(__AVX512F__)
#define LAZY_REGISTER __attribute__((vector_size(64)))
#elif defined(__AVX2__)
#define LAZY_REGISTER __attribute__((vector_size(32)))
#else
#define LAZY_REGISTER __attribute__((vector_size(16)))
#endif
template <class T> struct Lanes;
template <> struct Lanes<double> { typedef double V LAZY_REGISTER; typedef int64_t I LAZY_REGISTER; };
template <> struct Lanes<float> { typedef float V LAZY_REGISTER; typedef int32_t I LAZY_REGISTER; };
template <class T> using Small __attribute__((vector_size(16))) = T;
template <class T> constexpr int64_t kCount = sizeof(typename Lanes<T>::V) / sizeof(T);
template <class T> constexpr int kLevels = __builtin_ctz(kCount<T>);

template <class V, class T> inline V load(const T* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
template <class V, class T> inline void store(T* p, const V& v) { std::memcpy(p, &v, sizeof v); }

// Lines that are wanted soon, fetched a few at a time between the butterflies of what is worked on now: as memory would
// idle while the caches work, and the caches wait while memory does.
struct Ahead {
  const char *p, *end;
  void fetch(int64_t lines) {
    if (p >= end) return;
    for (int64_t i = 0; i < lines; ++i, p += kLineBytes) __builtin_prefetch(p, 0, 2);
  }
};

// The level between neighbours at a distance within one register.
template <class T, int kDistance, size_t... lane>
inline typename Lanes<T>::V neighbours(typename Lanes<T>::V v, std::index_sequence<lane...>) {
  using V = typename Lanes<T>::V;
  using I = typename Lanes<T>::I;
  return __builtin_shuffle(v, I{(lane ^ kDistance)...}) + v * V{T(lane & kDistance ? -1 : 1)...};
}

template <class T, int kDistance, int kPoints>
inline void within(typename Lanes<T>::V (&v)[kPoints]) {
  if constexpr (kDistance < kCount<T>) {
#pragma GCC unroll 8
    for (int j = 0; j < kPoints; ++j) v[j] = neighbours<T, kDistance>(v[j], std::make_index_sequence<kCount<T>>{});
    within<T, 2 * kDistance>(v);
  }
}

// A register whose origin the compiler does not know.
template <class V>
inline V hidden(V v) {
#ifdef __AVX2__
  asm("" : "+x"(v));
#endif
  return v;
}

// Log2(kPoints) levels between registers. Of eight points, half of the differences are a * one - b, the same number from
// the units that multiply: 1.20 instead of 1.48 cycles a register in the first-level cache (Zen 3, 2026-11).
template <class V, int kPoints>
inline void between(V (&v)[kPoints], V one) {
#pragma GCC unroll 4
  for (int step = 1; step < kPoints; step *= 2) {
#pragma GCC unroll 8
    for (int j = 0; j < kPoints; ++j) {
      if (j & step || j + step >= kPoints) continue;
      const V a = v[j], b = v[j + step];
      v[j] = a + b;
#ifdef __FMA__
      const bool multiplied = kPoints == 8 && (step == 1 ? j % 4 == 0 : step == 2 ? j % 4 == 1 : j % 2 == 0);
      v[j + step] = multiplied ? a * one - b : a - b;
#else
      v[j + step] = a - b;
#endif
    }
  }
}

// The levels within registers and the next R, of contiguous numbers.
template <int R, class T>
void first_levels(T* x, int64_t length, Ahead& ahead) {
  using V = typename Lanes<T>::V;
  constexpr int64_t kPoints = 1 << R, kLines = std::max<int64_t>(kPoints * sizeof(V) / kLineBytes / 4, 1);
  for (T* p = x; p < x + length; p += kPoints * kCount<T>) {
    ahead.fetch(kLines);
    V v[kPoints];
#pragma GCC unroll 8
    for (int64_t j = 0; j < kPoints; ++j) v[j] = load<V>(p + j * kCount<T>);
    within<T, 1>(v);
    between(v, V{} + 1);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kPoints; ++j) store(p + j * kCount<T>, v[j]);
  }
}

// A matrix of numbers whose rows lie `stride` numbers apart.
template <class T>
struct Grid {
  T* p;
  int64_t stride;
};

// R levels between 2^R rows of `width` numbers, `in_step` and `out_step` apart.
template <int R, bool kInPlace, class V, class T>
__attribute__((noinline)) void butterflies(T* in, int64_t in_step, T* out, int64_t out_step, int64_t width) {
  constexpr int64_t kPoints = 1 << R, kLanes = sizeof(V) / sizeof(T);
  const V one = hidden(V{} + 1);
  for (int64_t k = 0; k < width; k += kLanes, in += kLanes, out += kLanes) {
    V v[kPoints];
#pragma GCC unroll 8
    for (int64_t j = 0; j < kPoints; ++j) v[j] = hidden(load<V>(in + j * in_step));  // else two loads of each number
    between(v, one);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kPoints; ++j)
      kInPlace ? store(in + j * in_step, v[j]) : store(out + j * out_step, v[j]);
  }
}

// Numbers before the first whole register of a row: numpy's arrays begin 16 bytes behind a page.
template <class T>
inline int64_t before_register(const T* p) {
  constexpr uintptr_t kBytes = sizeof(typename Lanes<T>::V);
  const uintptr_t past = reinterpret_cast<uintptr_t>(p) % kBytes;
  return past % sizeof(Small<T>) ? 0 : (kBytes - past) % kBytes / sizeof(T);
}

// R levels at once: between 2^R rows at distance h, from one grid into another or in place.
template <int R, bool kInPlace, class T>
void radix(Grid<T> from, Grid<T> to, int64_t rows, int64_t columns, int64_t h, Ahead& ahead) {
  using V = typename Lanes<T>::V;
  constexpr int64_t kPiece = kPieceBytes / sizeof(T);
  const int64_t in_step = h * from.stride, out_step = kInPlace ? in_step : h * to.stride;
  const int64_t head = before_register(to.p), tail = head ? kCount<T> - head : 0;
  for (int64_t base = 0; base < rows; base += h << R) {
    for (int64_t row = base; row < base + h; ++row) {
      T *in = from.p + row * from.stride, *out = kInPlace ? in : to.p + row * to.stride;
      if (head) butterflies<R, kInPlace, Small<T>>(in, in_step, out, out_step, head);
      for (int64_t k = head; k < columns - tail; k += kPiece) {
        const int64_t width = std::min(kPiece, columns - tail - k);
        ahead.fetch((width << R) * sizeof(T) / kLineBytes / 4);
        butterflies<R, kInPlace, V>(in + k, in_step, out + k, out_step, width);
      }
      const int64_t end = columns - tail;
      if (tail) butterflies<R, kInPlace, Small<T>>(in + end, in_step, out + end, out_step, tail);
    }
  }
}

template <bool kInPlace, class T>
void some_levels(int levels, Grid<T> from, Grid<T> to, int64_t rows, int64_t columns, int64_t h, Ahead& ahead) {
  switch (levels) {
    case 3: radix<3, kInPlace>(from, to, rows, columns, h, ahead); break;
    case 2: radix<2, kInPlace>(from, to, rows, columns, h, ahead); break;
    default: radix<1, kInPlace>(from, to, rows, columns, h, ahead);
  }
}

// As few steps as there can be, of at most three levels, as even as can be.
inline int next_step(int left) { return (left + (left + 2) / 3 - 1) / ((left + 2) / 3); }

// Levels [from, to) of a contiguous array of `length` numbers, from >= kLevels.
template <class T>
void levels_between(T* x, int64_t length, int from, int to, Ahead& ahead) {
  while (from < to) {
    const int now = next_step(to - from);
    const Grid<T> whole{x, int64_t{1} << from};
    some_levels<true>(now, whole, whole, length >> from, whole.stride, 1, ahead);
    from += now;
  }
}

// The transform of a contiguous array; `next` is another of the same length that comes next, or null.
template <class T>
void transform(T* x, int levels, const T* next) {
  const int64_t length = int64_t{1} << levels;
  if (levels < kLevels<T>) {
    for (int64_t h = 1; h < length; h *= 2)
      for (int64_t i = 0; i < length; ++i)
        if (!(i & h)) {
          const T a = x[i], b = x[i + h];
          x[i] = a + b;
          x[i + h] = a - b;
        }
    return;
  }
  const int64_t block = std::min<int64_t>(length, kNearBytes / sizeof(T));
  const int near = __builtin_ctzll(static_cast<uint64_t>(block)), first = std::min(3, near - kLevels<T>);
  for (int64_t b = 0; b < length; b += block) {
    Ahead ahead{};
    if (next) ahead = {reinterpret_cast<const char*>(next + b), reinterpret_cast<const char*>(next + b + block)};
    switch (first) {
      case 3: first_levels<3>(x + b, block, ahead); break;
      case 2: first_levels<2>(x + b, block, ahead); break;
      case 1: first_levels<1>(x + b, block, ahead); break;
      default: first_levels<0>(x + b, block, ahead);
    }
    levels_between(x + b, block, kLevels<T> + first, near, ahead);
  }
  Ahead nothing{};
  levels_between(x, length, near, levels, nothing);
}

// The transform along a strided axis. With more than one step the tile lies in a buffer between them: in place more than
// eight rows would push each other out of the caches' sets.
template <class T>
void strided(T* x, const Tile& t, T* buffer) {
  const int levels = __builtin_ctzll(static_cast<uint64_t>(t.rows));
  const Grid<T> there{x + t.column, t.stride}, here{buffer, t.columns + buffer_gap<T>};
  Ahead nothing{};
  for (int done = 0; done < levels;) {
    const int now = next_step(levels - done);
    const bool first = done == 0, last = done + now == levels;
    const Grid<T>&in = first ? there : here, &out = last ? there : here;
    if (first == last)
      some_levels<true>(now, in, in, t.rows, t.columns, int64_t{1} << done, nothing);
    else
      some_levels<false>(now, in, out, t.rows, t.columns, int64_t{1} << done, nothing);
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
