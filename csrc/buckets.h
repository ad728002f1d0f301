// What crosses from the bucket operators (compiled once) to their kernels (compiled once per ISA).
#pragma once
#include <cstddef>
#include <cstdint>

namespace lazy {

// Row-wise affine hash: z_k = floor(sum_j x_j w[j][k] + b[k]), computed in double without contraction.
struct Affine {
  const void* x;       // (rows, features), float when single, else double
  bool single;
  int64_t rows, features, hashes, padded;  // padded: hashes rounded up to 8
  const double* w;     // (features, padded)
  const double* b;     // (padded)
  int shift;           // arithmetic shift of z to the right: the union of 2^shift neighbouring cells
};

// Hash-consed vectors of int32. index: slots + 1 in the low half, upper half of the hash above it; 0 is empty.
struct Table {
  int64_t* index;
  uint64_t mask;       // size of index - 1, a power of two
  int32_t* keys;       // (capacity, hashes)
  int64_t hashes, capacity, count;
};

// Sums over the rows of a slot: count, y, y^2; for degree 1 also x, upper triangle of x x^T, and x y^T for each output.
struct Sums {
  double* rows;
  int64_t width, features, outputs, degree;
};

// Buckets at hashed places, for prediction: record and tag of a place that is in use, tag 0 elsewhere. A record holds key,
// numbers and slot of a bucket in whole cache lines; the first kNear tags stand once more behind the last.
struct Packed {
  int64_t* records;    // (places, words)
  uint16_t* tags;      // (places + kNear)
  int64_t places, words, hashes, columns;

  static constexpr int64_t kNear = 4;
  static int64_t key_words(int64_t hashes) { return (hashes + 1) / 2; }
  static int64_t words_of(int64_t hashes, int64_t columns) { return (key_words(hashes) + columns + 1 + 7) / 8 * 8; }
};

// In rising order of what is said first; foreign: the index is not one of the keys.
enum class RowStatus : int { fine = 0, foreign = 1, overflow = 2, not_finite = 3 };

struct BucketKernels {
  RowStatus (*hash)(const Affine&, int64_t begin, int64_t end, int32_t* out);
  RowStatus (*find)(const Table&, const int32_t* rows, int64_t begin, int64_t end, int64_t* slots);
  // ends early, at the first row without room; done: rows that have their slot
  RowStatus (*insert)(Table&, const int32_t* rows, int64_t begin, int64_t end, int64_t* slots, int64_t* done);
  void (*rehash)(Table&);
  void (*accumulate)(const Sums&, const int64_t* slots, const double* x, const double* y, int64_t rows);
  // values: (count, columns)
  void (*pack)(const int32_t* keys, const double* values, int64_t count, const Packed&);
  // hash, find and evaluate outputs x (1 + degree * features) columns; a row without a bucket gets slot -1
  RowStatus (*predict)(const Affine&, const Packed&, int64_t outputs, int64_t begin, int64_t end, double* y,
                       int64_t* slots);
};

}  // namespace lazy
