// The bucket operators as torch sees them; included by bindings.cpp, which has the headers and the choice of the ISA.
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "buckets.h"

namespace lazy {

#define LAZY_DECLARE_BUCKETS(isa) \
  namespace isa {                 \
  BucketKernels bucket_kernels(); \
  }
LAZY_DECLARE_BUCKETS(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_BUCKETS(avx2)
LAZY_DECLARE_BUCKETS(avx512)
LAZY_DECLARE_BUCKETS(avx512_vnni)
#endif

namespace {

int64_t best_isa();

const BucketKernels& buckets() {
  static const BucketKernels kernels = [] {
#ifndef LAZY_PORTABLE_ONLY
    switch (best_isa()) {
      case 3: return avx512_vnni::bucket_kernels();
      case 2: return avx512::bucket_kernels();
      case 1: return avx2::bucket_kernels();
      default: break;
    }
#endif
    return portable::bucket_kernels();
  }();
  return kernels;
}

constexpr int64_t kBucketGrain = 8192;  // rows that are worth a thread

template <class T>
T* writable(const char* what, const Tensor& t, ScalarType type, int64_t dims) {
  STD_TORCH_CHECK(t.scalar_type() == type && t.dim() == dims && t.is_contiguous(), what,
                  " must be a contiguous tensor of its own dtype and rank.");
  return static_cast<T*>(t.mutable_data_ptr());
}

template <class T>
const T* readable(const char* what, const Tensor& t, ScalarType type, int64_t dims) {
  STD_TORCH_CHECK(t.scalar_type() == type && t.dim() == dims && t.is_contiguous(), what,
                  " must be a contiguous tensor of its own dtype and rank.");
  return static_cast<const T*>(t.const_data_ptr());
}

Affine affine_of(const Tensor& x, const Tensor& w, const Tensor& b, int64_t hashes, int64_t shift) {
  const bool single = x.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK(x.dim() == 2 && x.is_contiguous() && (single || x.scalar_type() == ScalarType::Double),
                  "x must be a contiguous matrix of float32 or float64.");
  Affine a = {};
  a.w = readable<double>("w", w, ScalarType::Double, 2);
  a.b = readable<double>("b", b, ScalarType::Double, 1);
  a.x = x.const_data_ptr();
  a.single = single;
  a.rows = x.size(0);
  a.features = x.size(1);
  a.hashes = hashes;
  a.padded = (hashes + 7) / 8 * 8;
  a.shift = static_cast<int>(shift);
  STD_TORCH_CHECK(hashes >= 1 && hashes <= 4096 && shift >= 0 && shift < 32, "hashes is 1 to 4096 and shift 0 to 31.");
  STD_TORCH_CHECK(w.size(0) == a.features && w.size(1) == a.padded && b.size(0) == a.padded,
                  "w must be (features, hashes rounded up to 8), and b as long as its rows.");
  return a;
}

Table table_of(const Tensor& index, const Tensor& keys, int64_t count) {
  Table t = {};
  t.index = writable<int64_t>("index", index, ScalarType::Long, 1);
  t.mask = static_cast<uint64_t>(index.size(0)) - 1;
  STD_TORCH_CHECK(index.size(0) > 0 && (index.size(0) & (index.size(0) - 1)) == 0, "index has 2^k entries.");
  t.keys = writable<int32_t>("keys", keys, ScalarType::Int, 2);
  t.capacity = keys.size(0);
  t.hashes = keys.size(1);
  t.count = count;
  STD_TORCH_CHECK(count >= 0 && count <= t.capacity && t.capacity < index.size(0) && t.capacity < 0xFFFFFFFF,
                  "index must have more entries than there are slots, and there are at most 2^32 - 2 slots.");
  return t;
}

void raise_for(HashStatus status) {
  STD_TORCH_CHECK(status != HashStatus::not_finite, "NOT_FINITE");
  STD_TORCH_CHECK(status != HashStatus::overflow, "BUCKET_OVERFLOW");
}

// Runs f over ranges of rows on torch's threads, and returns the worst status.
template <class F>
HashStatus over_rows(int64_t rows, const F& f) {
  std::atomic<int> worst{0};
  torch::stable::parallel_for(0, rows, kBucketGrain, [&](int64_t begin, int64_t end) {
    const int status = static_cast<int>(f(begin, end));
    if (status) worst.store(status, std::memory_order_relaxed);
  });
  return static_cast<HashStatus>(worst.load());
}

Tensor bucket_hash(Tensor x, Tensor w, Tensor b, int64_t hashes, int64_t shift) {
  const Affine a = affine_of(x, w, b, hashes, shift);
  Tensor out = torch::stable::empty({a.rows, hashes}, ScalarType::Int);
  int32_t* z = static_cast<int32_t*>(out.mutable_data_ptr());
  raise_for(over_rows(a.rows, [&](int64_t begin, int64_t end) { return buckets().hash(a, begin, end, z); }));
  return out;
}

Tensor bucket_find(Tensor rows, Tensor index, Tensor keys, int64_t count) {
  const Table t = table_of(index, keys, count);
  const int32_t* wanted = readable<int32_t>("rows", rows, ScalarType::Int, 2);
  STD_TORCH_CHECK(rows.size(1) == t.hashes, "rows must be as wide as keys.");
  Tensor out = torch::stable::empty({rows.size(0)}, ScalarType::Long);
  int64_t* slots = static_cast<int64_t*>(out.mutable_data_ptr());
  over_rows(rows.size(0), [&](int64_t begin, int64_t end) {
    buckets().find(t, wanted, begin, end, slots);
    return HashStatus::fine;
  });
  return out;
}

// Continues at row `start`; state[0]: number of slots in use. Returns the first row that found no room, or all rows.
int64_t bucket_insert(Tensor rows, Tensor index, Tensor keys, Tensor state, Tensor slots, int64_t start) {
  int64_t* count = writable<int64_t>("state", state, ScalarType::Long, 1);
  Table t = table_of(index, keys, *count);
  const int32_t* wanted = readable<int32_t>("rows", rows, ScalarType::Int, 2);
  int64_t* out = writable<int64_t>("slots", slots, ScalarType::Long, 1);
  STD_TORCH_CHECK(rows.size(1) == t.hashes && slots.size(0) == rows.size(0) && start >= 0 && start <= rows.size(0),
                  "rows must be as wide as keys, and slots as long as rows.");
  const int64_t done = buckets().insert(t, wanted, start, rows.size(0), out);
  *count = t.count;
  return start + done;
}

// Asks for large pages before a tensor is first written: random reads miss the TLB at nearly every row without them.
void bucket_advise(Tensor t, int64_t bytes) {
  (void)t, (void)bytes;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(t.const_data_ptr()) + 4095) & ~uintptr_t{4095};
  if (bytes > (int64_t{1} << 22)) madvise(reinterpret_cast<void*>(begin), bytes - 4096, MADV_HUGEPAGE);
#endif
}

void bucket_rehash(Tensor index, Tensor keys, int64_t count) {
  Table t = table_of(index, keys, count);
  buckets().rehash(t);
}

void bucket_accumulate(Tensor sums, Tensor slots, Tensor x, Tensor y, int64_t degree) {
  Sums s = {};
  s.rows = writable<double>("sums", sums, ScalarType::Double, 2);
  s.width = sums.size(1);
  s.degree = degree;
  const int64_t* at = readable<int64_t>("slots", slots, ScalarType::Long, 1);
  const double* xs = readable<double>("x", x, ScalarType::Double, 2);
  const double* ys = readable<double>("y", y, ScalarType::Double, 2);
  s.features = x.size(1);
  s.outputs = y.size(1);
  const int64_t d = s.features, o = s.outputs;
  STD_TORCH_CHECK(s.width == 1 + 2 * o + (degree ? d + d * (d + 1) / 2 + o * d : 0) && y.size(0) == slots.size(0) &&
                      (degree == 0 || x.size(0) == slots.size(0)),
                  "sums does not have the width of these moments, or x, y and slots differ in length.");
  for (int64_t r = 0; r < slots.size(0); ++r)
    STD_TORCH_CHECK(at[r] < sums.size(0), "A slot lies behind the end of sums.");
  buckets().accumulate(s, at, xs, ys, slots.size(0));
}

void bucket_predict(Tensor x, Tensor w, Tensor b, int64_t shift, Tensor index, Tensor keys, int64_t count,
                    Tensor values, int64_t outputs, int64_t degree, Tensor y, Tensor slots) {
  const Table t = table_of(index, keys, count);
  const Affine a = affine_of(x, w, b, t.hashes, shift);
  const double* held = readable<double>("values", values, ScalarType::Double, 2);
  STD_TORCH_CHECK(values.size(0) >= std::max<int64_t>(count, 1) &&
                      values.size(1) == outputs * (degree ? 1 + a.features : 1),
                  "values has a row for each slot.");
  double* out = writable<double>("y", y, ScalarType::Double, 2);
  int64_t* at = writable<int64_t>("slots", slots, ScalarType::Long, 1);
  STD_TORCH_CHECK(y.size(0) == a.rows && y.size(1) == outputs && slots.size(0) == a.rows, "y and slots fit x.");
  raise_for(over_rows(a.rows, [&](int64_t begin, int64_t end) {
    return buckets().predict(a, t, held, outputs, degree, begin, end, out, at);
  }));
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("bucket_hash(Tensor x, Tensor w, Tensor b, int hashes, int shift) -> Tensor");
  m.def("bucket_find(Tensor rows, Tensor index, Tensor keys, int count) -> Tensor");
  m.def(
      "bucket_insert(Tensor rows, Tensor(a!) index, Tensor(b!) keys, Tensor(c!) state, Tensor(d!) slots, int start) "
      "-> int");
  m.def("bucket_rehash(Tensor(a!) index, Tensor keys, int count) -> ()");
  m.def("bucket_advise(Tensor t, int bytes) -> ()");
  m.def("bucket_accumulate(Tensor(a!) sums, Tensor slots, Tensor x, Tensor y, int degree) -> ()");
  m.def(
      "bucket_predict(Tensor x, Tensor w, Tensor b, int shift, Tensor index, Tensor keys, int count, Tensor values, "
      "int outputs, int degree, Tensor(a!) y, Tensor(b!) slots) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("bucket_hash", TORCH_BOX(&lazy::bucket_hash));
  m.impl("bucket_find", TORCH_BOX(&lazy::bucket_find));
  m.impl("bucket_insert", TORCH_BOX(&lazy::bucket_insert));
  m.impl("bucket_rehash", TORCH_BOX(&lazy::bucket_rehash));
  m.impl("bucket_advise", TORCH_BOX(&lazy::bucket_advise));
  m.impl("bucket_accumulate", TORCH_BOX(&lazy::bucket_accumulate));
  m.impl("bucket_predict", TORCH_BOX(&lazy::bucket_predict));
}
