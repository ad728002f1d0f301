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
constexpr int64_t kMaxHashes = 4096;
constexpr int64_t kMaxAxis = 1 << 24;   // features and outputs: their products do not overflow

Affine affine_of(const Tensor& x, const Tensor& w, const Tensor& b, int64_t hashes, int64_t shift) {
  LAZY_CHECK(hashes >= 1 && hashes <= kMaxHashes && shift >= 0 && shift < 32,
             "A row has 1 to 4096 hashes, shifted by 0 to 31, got ", hashes, " and ", shift, ".");
  Affine a = {};
  a.single = x.scalar_type() == ScalarType::Float;
  a.x = read("x", x, a.single ? ScalarType::Float : ScalarType::Double, {kAny, kAny});
  a.rows = x.size(0);
  a.features = x.size(1);
  a.hashes = hashes;
  a.padded = (hashes + 7) / 8 * 8;
  a.shift = static_cast<int>(shift);
  a.w = read<double>("The directions", w, ScalarType::Double, {a.features, a.padded});
  a.b = read<double>("The offsets", b, ScalarType::Double, {a.padded});
  return a;
}

Table table_of(const Tensor& index, const Tensor& keys, int64_t count) {
  Table t = {};
  t.index = write<int64_t>("index", index, ScalarType::Long, {kAny});
  t.keys = write<int32_t>("keys", keys, ScalarType::Int, {kAny, kAny});
  t.capacity = keys.size(0);
  t.hashes = keys.size(1);
  t.count = count;
  const int64_t entries = index.size(0);
  LAZY_CHECK(entries > 0 && (entries & (entries - 1)) == 0, "index has 2^k entries, got ", entries, ".");
  LAZY_CHECK(t.hashes >= 1 && t.hashes <= kMaxHashes, "A key has 1 to 4096 numbers, got ", t.hashes, ".");
  LAZY_CHECK(count >= 0 && count <= t.capacity, "The slots in use are at least 0 and at most the keys, ", t.capacity,
             ", got ", count, ".");
  LAZY_CHECK(t.capacity < entries && t.capacity < 0xFFFFFFFF, "index must have more entries than there are keys, and "
             "there are at most 2^32 - 2 keys; got ", entries, " entries and ", t.capacity, " keys.");
  t.mask = static_cast<uint64_t>(entries) - 1;
  return t;
}

void raise_for(RowStatus status) {
  LAZY_CHECK(status != RowStatus::not_finite, "NOT_FINITE");
  LAZY_CHECK(status != RowStatus::overflow, "BUCKET_OVERFLOW");
  LAZY_CHECK(status != RowStatus::foreign, "The index is not one of these keys: it names no slot of theirs, or is full; "
             "make it anew with bucket_rehash.");
}

// Runs f over ranges of rows on torch's threads, and returns the worst status.
template <class F>
RowStatus over_rows(int64_t rows, const F& f) {
  std::atomic<int> worst{0};
  torch::stable::parallel_for(0, rows, kBucketGrain, [&](int64_t begin, int64_t end) {
    const int status = static_cast<int>(f(begin, end));
    for (int seen = worst.load(); status > seen && !worst.compare_exchange_weak(seen, status);) {
    }
  });
  return static_cast<RowStatus>(worst.load());
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
  const int32_t* wanted = read<int32_t>("rows", rows, ScalarType::Int, {kAny, t.hashes});
  Tensor out = torch::stable::empty({rows.size(0)}, ScalarType::Long);
  int64_t* slots = static_cast<int64_t*>(out.mutable_data_ptr());
  raise_for(over_rows(rows.size(0), [&](int64_t begin, int64_t end) {
    return buckets().find(t, wanted, begin, end, slots);
  }));
  return out;
}

// Continues at row `start`; state[0]: number of slots in use. Returns the first row that found no room, or all rows.
int64_t bucket_insert(Tensor rows, Tensor index, Tensor keys, Tensor state, Tensor slots, int64_t start) {
  int64_t* count = write<int64_t>("state", state, ScalarType::Long, {1});
  Table t = table_of(index, keys, *count);
  const int32_t* wanted = read<int32_t>("rows", rows, ScalarType::Int, {kAny, t.hashes});
  int64_t* out = write<int64_t>("slots", slots, ScalarType::Long, {rows.size(0)});
  LAZY_CHECK(start >= 0 && start <= rows.size(0), "The first row is one of ", rows.size(0), ", got ", start, ".");
  check_apart("index and keys", index, keys);
  check_apart("index and slots", index, slots);
  int64_t done = 0;
  const RowStatus status = buckets().insert(t, wanted, start, rows.size(0), out, &done);
  *count = t.count;
  raise_for(status);
  return start + done;
}

// Asks for large pages before a tensor is first written: random reads miss the TLB at nearly every row without them.
void bucket_advise(Tensor t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const int64_t bytes = t.is_contiguous() ? t.numel() * static_cast<int64_t>(t.element_size()) : 0;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(t.const_data_ptr()) + 4095) & ~uintptr_t{4095};
  if (bytes > (int64_t{1} << 22)) madvise(reinterpret_cast<void*>(begin), bytes - 4096, MADV_HUGEPAGE);
#else
  (void)t;
#endif
}

void bucket_rehash(Tensor index, Tensor keys, int64_t count) {
  Table t = table_of(index, keys, count);
  check_apart("index and keys", index, keys);
  buckets().rehash(t);
}

void bucket_accumulate(Tensor sums, Tensor slots, Tensor x, Tensor y, int64_t degree) {
  LAZY_CHECK(degree == 0 || degree == 1, "degree is 0 or 1, got ", degree, ".");
  const int64_t rows = slots.numel(), d = x.dim() == 2 ? x.size(1) : 0, o = y.dim() == 2 ? y.size(1) : 0;
  LAZY_CHECK(d < kMaxAxis && o < kMaxAxis, "There are fewer than 2^24 features and outputs, got ", d, " and ", o, ".");
  const int64_t width = 1 + 2 * o + (degree ? d + d * (d + 1) / 2 + o * d : 0);
  const Sums s = {write<double>("The sums of these moments", sums, ScalarType::Double, {kAny, width}), width, d, o,
                  degree};
  const int64_t* at = read<int64_t>("slots", slots, ScalarType::Long, {rows});
  const double* xs = read<double>("x", x, ScalarType::Double, {degree ? rows : kAny, kAny});
  const double* ys = read<double>("y", y, ScalarType::Double, {rows, o});
  check_apart("sums and slots", sums, slots);
  check_apart("sums and x", sums, x);
  check_apart("sums and y", sums, y);
  // one number a row, next to a row of sums to be read and written
  for (int64_t r = 0; r < rows; ++r)
    LAZY_CHECK(at[r] < sums.size(0), "A slot lies behind the end of sums: slot ", at[r], " of ", sums.size(0), ".");
  buckets().accumulate(s, at, xs, ys, rows);
}

Packed packed_of(const Tensor& records, const Tensor& tags, int64_t hashes, int64_t columns) {
  LAZY_CHECK(hashes >= 1 && hashes <= kMaxHashes, "A key has 1 to 4096 numbers, got ", hashes, ".");
  Packed p = {};
  p.hashes = hashes;
  p.columns = columns;
  p.words = Packed::words_of(hashes, columns);
  p.places = records.dim() == 2 ? records.size(0) : 0;
  LAZY_CHECK(p.places >= 1 && p.places <= 0xFFFFFFFF, "records has 1 to 2^32 - 1 places, got ", p.places, ".");
  p.records = write<int64_t>("records", records, ScalarType::Long, {p.places, p.words});
  p.tags = reinterpret_cast<uint16_t*>(write<int16_t>("tags", tags, ScalarType::Short, {p.places + Packed::kNear}));
  return p;
}

int64_t columns_of(int64_t outputs, int64_t degree, int64_t features) {
  LAZY_CHECK(degree == 0 || degree == 1, "degree is 0 or 1, got ", degree, ".");
  LAZY_CHECK(outputs >= 0 && outputs < kMaxAxis && features < kMaxAxis,
             "There are fewer than 2^24 features and outputs, got ", features, " and ", outputs, ".");
  return outputs * (degree ? 1 + features : 1);
}

void bucket_pack(Tensor keys, int64_t count, Tensor values, Tensor records, Tensor tags) {
  const int32_t* held = read<int32_t>("keys", keys, ScalarType::Int, {kAny, kAny});
  const double* numbers = read<double>("values", values, ScalarType::Double, {kAny, kAny});
  LAZY_CHECK(values.size(1) < (int64_t{1} << 48), "A bucket has fewer than 2^48 numbers, got ", values.size(1), ".");
  const Packed p = packed_of(records, tags, keys.size(1), values.size(1));
  LAZY_CHECK(count >= 0 && count <= keys.size(0) && count <= values.size(0) && count < p.places,
             "The buckets are at most the keys, ", keys.size(0), ", and the values, ", values.size(0),
             ", and fewer than the places, ", p.places, ", got ", count, ".");
  check_apart("records and keys", records, keys);
  check_apart("records and values", records, values);
  check_apart("records and tags", records, tags);
  check_apart("tags and keys", tags, keys);
  check_apart("tags and values", tags, values);
  buckets().pack(held, numbers, count, p);
}

void bucket_predict(Tensor x, Tensor w, Tensor b, int64_t hashes, int64_t shift, Tensor records, Tensor tags,
                    int64_t outputs, int64_t degree, Tensor y, Tensor slots) {
  const Affine a = affine_of(x, w, b, hashes, shift);
  const Packed p = packed_of(records, tags, hashes, columns_of(outputs, degree, a.features));
  double* out = write<double>("y", y, ScalarType::Double, {a.rows, outputs});
  int64_t* at = write<int64_t>("slots", slots, ScalarType::Long, {a.rows});
  check_apart("x and y", x, y);
  check_apart("x and slots", x, slots);
  check_apart("records and y", records, y);
  check_apart("records and slots", records, slots);
  check_apart("y and slots", y, slots);
  raise_for(over_rows(a.rows, [&](int64_t begin, int64_t end) {
    return buckets().predict(a, p, outputs, begin, end, out, at);
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
  m.def("bucket_advise(Tensor t) -> ()");
  m.def("bucket_accumulate(Tensor(a!) sums, Tensor slots, Tensor x, Tensor y, int degree) -> ()");
  m.def(
      "bucket_pack(Tensor keys, int count, Tensor values, Tensor(a!) records, Tensor(b!) tags) -> ()");
  m.def(
      "bucket_predict(Tensor x, Tensor w, Tensor b, int hashes, int shift, Tensor records, Tensor tags, int outputs, "
      "int degree, Tensor(a!) y, Tensor(b!) slots) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("bucket_hash", TORCH_BOX(&lazy::bucket_hash));
  m.impl("bucket_find", TORCH_BOX(&lazy::bucket_find));
  m.impl("bucket_insert", TORCH_BOX(&lazy::bucket_insert));
  m.impl("bucket_rehash", TORCH_BOX(&lazy::bucket_rehash));
  m.impl("bucket_advise", TORCH_BOX(&lazy::bucket_advise));
  m.impl("bucket_accumulate", TORCH_BOX(&lazy::bucket_accumulate));
  m.impl("bucket_pack", TORCH_BOX(&lazy::bucket_pack));
  m.impl("bucket_predict", TORCH_BOX(&lazy::bucket_predict));
}
