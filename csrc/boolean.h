// What crosses from the operators on the Boolean cube (compiled once) to their kernels (compiled once per ISA).
//
// A column of bits is one input coordinate over the rows, 64 rows a word, bit 1 for x = -1; bits past the last row are
// zero. Subsets of coordinates stand in graded colexicographic order: by size, then by largest element, and so on.
#pragma once
#include <cstdint>

namespace lazy::boolean {

constexpr int kMaxDegree = 16;

struct Columns {
  const uint64_t* bits;  // (n, words)
  int64_t n, words, rows;
};

// binomial[t * (degree + 1) + i] = C(t, i); offset[k] = number of subsets smaller than k
struct Order {
  const int64_t* binomial;
  const int64_t* offset;
  int degree;
};

// Some neighbouring columns of a strided axis: `rows` pieces of `columns` numbers, `stride` numbers apart.
struct Tile {
  int64_t rows, stride, column, columns;
};

// Numbers between the rows of a buffer, so that these do not fall into the same sets of a cache.
template <class T> constexpr int64_t buffer_gap = 64 / sizeof(T);

struct Kernels {
  // next: an array of the same length that is transformed next, or null
  void (*transform_f32)(float* x, int levels, const float* next);
  void (*transform_f64)(double* x, int levels, const double* next);
  // buffer: rows * (columns + buffer_gap) numbers, not used up to eight rows
  void (*strided_f32)(float* x, const Tile& tile, float* buffer);
  void (*strided_f64)(double* x, const Tile& tile, double* buffer);
  // the subsets whose two smallest elements are first and second (second < 0: the set {first} alone)
  void (*moments)(const Columns&, const Order&, int64_t first, int64_t second, int32_t* out);
  void (*analysis)(const Columns&, const Order&, int64_t first, int64_t second, const double* y, double* out);
  // all subsets, for the rows of 64-row words [begin, end)
  void (*synthesis)(const Columns&, const Order&, int64_t begin, int64_t end, const double* coefficient, double* out);
  void (*distances)(const uint64_t* row, const uint64_t* rows, int64_t count, int64_t words, int32_t* out);
  void (*gram)(const int16_t* subsets, const Order&, const int32_t* moments, int64_t size, int64_t degree,
               int64_t row0, int64_t row1, int64_t column0, int64_t column1, float* out);
};

}  // namespace lazy::boolean
