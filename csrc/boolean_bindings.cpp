// The operators on the Boolean cube as torch sees them: checks, run-time choice of the ISA build, torch's thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "boolean.h"
#include "checks.h"

namespace lazy::boolean {

#define LAZY_DECLARE(isa) namespace isa { const Kernels& kernels(); }
LAZY_DECLARE(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE(avx2)
LAZY_DECLARE(avx512_popcnt)
#endif

namespace {

constexpr int64_t kBlockBytes = 131072;  // part of the transform that one worker does in its second-level cache
constexpr int kGrown = 2;                // times that it joins eight such parts, in the third-level cache
constexpr int kJoined = 3;               // levels in place: more rows than eight push each other out of a cache's sets
constexpr int kStrided = 8;              // most levels of one pass over all
constexpr int64_t kTileBytes = 524288;   // of one tile of it
constexpr int64_t kRowBytes = 16384;     // most bytes of one row of a tile: long ones, as rows lie in pages far apart
constexpr int64_t kMaxColumns = 1 << 20;      // coordinates of a cube
constexpr int64_t kMaxSubsets = int64_t{1} << 40;
constexpr int64_t kMaxWords = 1 << 20;        // of a packed row: distances are int32

int64_t best_level() {
#ifndef LAZY_PORTABLE_ONLY
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vpopcntdq");
  return wide ? 2 : 1;
#else
  return 0;
#endif
}

const Kernels& kernels_for(int64_t isa) {
  static const int64_t best = best_level();
  LAZY_CHECK(isa >= -1 && isa <= best, "The kernel level asked for (", isa, ") is none, or above what this processor runs (",
             best, "); ask for one from 0 to that, or -1 for the best.");
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best : isa) {
    case 2: return avx512_popcnt::kernels();
    case 1: return avx2::kernels();
    default: break;
  }
#endif
  return portable::kernels();
}

// Calls unit(i, own) for i in [0, count), each once, on torch's threads; who is free takes the next. Each thread calls
// make() for what is its own.
template <class Make, class F>
void share_with(int64_t count, const Make& make, const F& unit) {
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  if (threads <= 1) {
    auto&& own = make();
    for (int64_t i = 0; i < count; ++i) unit(i, own);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    auto&& own = make();
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) unit(i, own);
  });
}

template <class F>
void share(int64_t count, const F& unit) {
  share_with(count, [] { return 0; }, [&](int64_t i, int) { unit(i); });
}

template <class T>
struct Aligned {
  explicit Aligned(int64_t n) : p(static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64))) {
    if (!p) throw std::bad_alloc();
  }
  ~Aligned() { std::free(p); }
  T* p;
};

// The levels of blocks, then of parts that a worker grows from its blocks, then passes over all.
template <class T>
struct Transform {
  static constexpr int kBlock = __builtin_ctzll(kBlockBytes / sizeof(T));
  void (*contiguous)(T*, int, const T*);
  void (*strided)(T*, const Tile&, T*);

  void grow(T* x, int levels, const T* next) const {
    if (levels <= kBlock) return contiguous(x, levels, next);
    constexpr int64_t kParts = 1 << kJoined;
    const int64_t part = int64_t{1} << (levels - kJoined);
    for (int64_t i = 0; i < kParts; ++i) grow(x + i * part, levels - kJoined, i + 1 < kParts ? x + (i + 1) * part : next);
    strided(x, {kParts, part, 0, part}, nullptr);
  }

  void pass(T* x, int64_t groups, int done, int now) const {
    const int64_t stride = int64_t{1} << done, rows = int64_t{1} << now;
    const int64_t columns = std::min(stride, std::min(kRowBytes, kTileBytes / rows) / static_cast<int64_t>(sizeof(T)));
    const int64_t tiles = stride / columns, buffered = now > kJoined ? rows * (columns + buffer_gap<T>) : 1;
    share_with(groups * tiles, [&] { return Aligned<T>(buffered); }, [&](int64_t i, Aligned<T>& buffer) {
      strided(x + i / tiles * stride * rows, {rows, stride, i % tiles * columns, columns}, buffer.p);
    });
  }

  void operator()(T* x, int64_t vectors, int levels) const {
    const int64_t all = vectors << levels, workers = torch::stable::get_num_threads();
    int done = std::min(levels, kBlock);
    for (int i = 0; i < kGrown && done + kJoined <= levels && all >> (done + kJoined) >= workers; ++i) done += kJoined;
    share(all >> done, [&](int64_t i) { grow(x + (i << done), done, nullptr); });
    while (done < levels) {
      const int left = levels - done, passes = (left + kStrided - 1) / kStrided, now = (left + passes - 1) / passes;
      pass(x, all >> (done + now), done, now);
      done += now;
    }
  }
};

Tensor fwht_(Tensor x, int64_t isa) {
  const int64_t length = x.dim() ? x.size(x.dim() - 1) : 0;
  LAZY_CHECK(length > 0 && (length & (length - 1)) == 0, "The last axis must be a power of two long, got ", length,
             "; give the values at all points.");
  LAZY_CHECK(x.is_contiguous(), "The transform in place takes a contiguous tensor; copy it first.");
  check_memory("x", x, x.const_data_ptr());
  const Kernels& k = kernels_for(isa);
  const int levels = __builtin_ctzll(static_cast<uint64_t>(length));
  const int64_t vectors = x.numel() / length;
  if (x.scalar_type() == ScalarType::Double)
    Transform<double>{k.transform_f64, k.strided_f64}(static_cast<double*>(x.mutable_data_ptr()), vectors, levels);
  else if (x.scalar_type() == ScalarType::Float)
    Transform<float>{k.transform_f32, k.strided_f32}(static_cast<float*>(x.mutable_data_ptr()), vectors, levels);
  else
    refuse("The transform takes float32 and float64, got ", name_of(x.scalar_type()), "; convert the tensor.");
  return x;
}

struct Table {
  Table(int64_t n, int64_t degree) : binomial((n + 1) * (degree + 1)), offset(degree + 2) {
    for (int64_t t = 0; t <= n; ++t)
      for (int64_t i = 0; i <= degree; ++i)
        binomial[t * (degree + 1) + i] = i == 0 ? 1 : t == 0 ? 0 : sum(at(t - 1, i - 1, degree), at(t - 1, i, degree));
    for (int64_t k = 0; k <= degree; ++k) offset[k + 1] = sum(offset[k], at(n, k, degree));
    LAZY_CHECK(size() < kMaxSubsets, "There are too many subsets of up to ", degree, " of ", n,
               " coordinates to be numbered; take a lower degree or fewer columns.");
    order = {binomial.data(), offset.data(), static_cast<int>(degree)};
  }
  static int64_t sum(int64_t a, int64_t b) { return std::min(a + b, kMaxSubsets); }  // what is larger is refused
  int64_t at(int64_t t, int64_t i, int64_t degree) const { return binomial[t * (degree + 1) + i]; }
  int64_t size() const { return offset.back(); }
  std::vector<int64_t> binomial, offset;
  Order order;
};

Columns columns_of(const Tensor& bits, int64_t rows, int64_t degree) {
  LAZY_CHECK(rows >= 0 && rows < (int64_t{1} << 31), "The number of rows is at least 0 and below 2^31, got ", rows, ".");
  const auto* p = read<uint64_t>("Packed columns", bits, ScalarType::Long, {kAny, (rows + 63) / 64});
  const Columns c = {p, bits.size(0), bits.size(1), rows};
  LAZY_CHECK(c.n <= kMaxColumns, "A cube has at most 2^20 coordinates here, got ", c.n, ".");
  LAZY_CHECK(degree >= 0 && degree <= kMaxDegree && degree <= c.n, "The degree is at least 0 and at most 16 and the "
             "number of columns, ", c.n, ", got ", degree, ".");
  // one word a column, next to a pass over all words for every subset
  for (int64_t t = 0; t < c.n && rows % 64; ++t)
    LAZY_CHECK(p[(t + 1) * c.words - 1] >> (rows % 64) == 0, "Packed columns hold bits behind their last row; pack "
               "them again.");
  return c;
}

// The units of work of a walk over subsets: (first, second), second -1 for the singleton.
std::vector<std::pair<int32_t, int32_t>> starts(int64_t n, int64_t degree) {
  std::vector<std::pair<int32_t, int32_t>> found;
  for (int32_t a = 0; a < n && degree > 0; ++a) {
    found.emplace_back(a, -1);
    for (int32_t b = a + 1; b < n && degree > 1; ++b) found.emplace_back(a, b);
  }
  return found;
}

Tensor walsh_moments(Tensor bits, int64_t rows, int64_t degree, int64_t isa) {
  const Columns c = columns_of(bits, rows, degree);
  const Table table(c.n, degree);
  Tensor result = torch::stable::empty({table.size()}, ScalarType::Int);
  int32_t* out = static_cast<int32_t*>(result.mutable_data_ptr());
  std::fill(out, out + table.size(), 0);
  out[0] = static_cast<int32_t>(rows);
  const auto work = starts(c.n, degree);
  const Kernels& k = kernels_for(isa);
  share(static_cast<int64_t>(work.size()),
        [&](int64_t i) { k.moments(c, table.order, work[i].first, work[i].second, out); });
  return result;
}

// As many numbers, whatever their axes are.
const double* doubles(const char* what, const Tensor& t, int64_t count) {
  LAZY_CHECK(t.scalar_type() == ScalarType::Double && t.is_contiguous() && t.numel() == count, what, " must be ", count,
             " contiguous float64 numbers, got ", t.is_contiguous() ? "" : "strided ", name_of(t.scalar_type()),
             " of shape ", written(t.sizes()), ".");
  const void* p = t.const_data_ptr();
  check_memory(what, t, p);
  return static_cast<const double*>(p);
}

Tensor walsh_analysis(Tensor bits, Tensor y, int64_t degree, int64_t isa) {
  const int64_t rows = y.numel();
  const Columns c = columns_of(bits, rows, degree);
  const double* in = doubles("y", y, rows);
  const Table table(c.n, degree);
  Aligned<double> padded(c.words * 64 + 8);
  std::copy(in, in + rows, padded.p);
  std::fill(padded.p + rows, padded.p + c.words * 64, 0.0);
  Tensor result = torch::stable::empty({table.size()}, ScalarType::Double);
  double* out = static_cast<double*>(result.mutable_data_ptr());
  std::fill(out, out + table.size(), 0.0);
  for (int64_t i = 0; i < rows; ++i) out[0] += in[i];
  const auto work = starts(c.n, degree);
  const Kernels& k = kernels_for(isa);
  share(static_cast<int64_t>(work.size()),
        [&](int64_t i) { k.analysis(c, table.order, work[i].first, work[i].second, padded.p, out); });
  return result;
}

Tensor walsh_synthesis(Tensor bits, Tensor coefficient, int64_t rows, int64_t degree, int64_t isa) {
  const Columns c = columns_of(bits, rows, degree);
  const Table table(c.n, degree);
  const double* in = doubles("The coefficients", coefficient, table.size());
  Tensor result = torch::stable::empty({rows}, ScalarType::Double);
  Aligned<double> padded(c.words * 64 + 8);
  const Kernels& k = kernels_for(isa);
  share((c.words + 31) / 32, [&](int64_t i) {
    k.synthesis(c, table.order, 32 * i, std::min(c.words, 32 * (i + 1)), in, padded.p);
  });
  std::copy(padded.p, padded.p + rows, static_cast<double*>(result.mutable_data_ptr()));
  return result;
}

// Linear in the subsets, next to the quadratic number of pairs: their symmetric differences index the moments.
void check_subsets(const int16_t* sets, int64_t size, int64_t degree, int64_t n) {
  for (int64_t s = 0; s < size && degree; ++s) {
    const int16_t* set = sets + s * degree;
    for (int64_t i = 0; i < degree; ++i) {
      const bool absent = set[i] == -1 && (i + 1 == degree || set[i + 1] == -1);
      const bool present = set[i] >= 0 && set[i] < n && (i == 0 || set[i - 1] < set[i]);
      LAZY_CHECK(absent || present, "A subset lists its elements, from 0 to ", n - 1,
                 ", in rising order, and -1 behind them; subset ", s, " does not.");
    }
  }
}

Tensor walsh_gram(Tensor subsets, Tensor moments, int64_t n, int64_t isa) {
  const auto* sets = read<int16_t>("Subsets", subsets, ScalarType::Short, {kAny, kAny});
  const int64_t size = subsets.size(0), degree = subsets.size(1);
  LAZY_CHECK(n >= 0 && n <= 32767, "Subsets are of 0 to 32767 coordinates, got ", n, ".");
  LAZY_CHECK(degree <= kMaxDegree, "Subsets have at most 16 elements, got room for ", degree, ".");
  const Table table(n, std::min(n, 2 * degree));
  const auto* values = read<int32_t>("The moments of twice the degree", moments, ScalarType::Int, {table.size()});
  Tensor result = torch::stable::empty({size, size}, ScalarType::Float);
  float* out = static_cast<float*>(result.mutable_data_ptr());
  check_subsets(sets, size, degree, n);
  const Kernels& k = kernels_for(isa);
  const int64_t tile = 64, tiles = (size + tile - 1) / tile;
  share(tiles, [&](int64_t i) {
    const int64_t row = (tiles - 1 - i) * tile;
    for (int64_t column = 0; column <= row; column += tile)
      k.gram(sets, table.order, values, size, degree, row, std::min(size, row + tile), column,
             std::min(size, column + tile), out);
  });
  return result;
}

const uint64_t* packed_rows(const Tensor& t) {
  const auto* p = read<uint64_t>("Packed rows", t, ScalarType::Long, {kAny, kAny});
  LAZY_CHECK(t.size(1) <= kMaxWords, "A packed row has at most 2^20 words, got ", t.size(1), ".");
  return p;
}

Tensor hamming_lookup(Tensor a, Tensor b, Tensor table, int64_t isa) {
  const uint64_t *left = packed_rows(a), *right = packed_rows(b);
  const int64_t words = a.size(1), rows = a.size(0), columns = b.size(0);
  LAZY_CHECK(b.size(1) == words, "Both sides must have the same number of words, got ", words, " and ", b.size(1), ".");
  const double* values = doubles("The table of values for each distance", table, 64 * words + 1);
  Tensor result = torch::stable::empty({rows, columns}, ScalarType::Double);
  auto* out = static_cast<double*>(result.mutable_data_ptr());
  const Kernels& k = kernels_for(isa);
  share(rows, [&](int64_t i) {
    int32_t distance[512];
    for (int64_t j = 0; j < columns; j += 512) {
      const int64_t count = std::min<int64_t>(512, columns - j);
      k.distances(left + i * words, right + j * words, count, words, distance);
      for (int64_t c = 0; c < count; ++c) out[i * columns + j + c] = values[distance[c]];
    }
  });
  return result;
}

// A pair further apart than n would be left out of the sums; linear in the rows, next to their pairs.
void check_bits(const uint64_t* bits, int64_t rows, int64_t words, int64_t n) {
  LAZY_CHECK(n >= 0 && n <= 64 * words, "n is at least 0 and at most the bits of a packed row, ", 64 * words, ", got ", n,
             ".");
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t w = n / 64; w < words; ++w)
      LAZY_CHECK(bits[r * words + w] >> (w == n / 64 ? n % 64 : 0) == 0, "Packed rows hold bits behind n = ", n,
                 "; pack them again.");
}

// out[h] = sum of y_a y_b over pairs a < b at Hamming distance h.
Tensor hamming_sums(Tensor rows, Tensor y, int64_t n, int64_t isa) {
  const uint64_t* bits = packed_rows(rows);
  const int64_t m = rows.size(0), words = rows.size(1), width = 64 * words + 1, chunk = 128;
  const double* value = doubles("y", y, m);
  check_bits(bits, m, words, n);
  const int64_t chunks = (m + chunk - 1) / chunk;
  std::vector<double> partial(chunks * width, 0.0);
  const Kernels& k = kernels_for(isa);
  share(chunks, [&](int64_t i) {
    std::vector<double> bins(4 * width);
    int32_t distance[512];
    double* out = partial.data() + i * width;
    for (int64_t a = i * chunk; a < std::min(m, (i + 1) * chunk); ++a) {
      std::fill(bins.begin(), bins.end(), 0.0);
      for (int64_t j = a + 1; j < m; j += 512) {
        const int64_t count = std::min<int64_t>(512, m - j);
        k.distances(bits + a * words, bits + j * words, count, words, distance);
        int64_t c = 0;
        for (; c + 4 <= count; c += 4)  // four tables: neighbours often fall into the same bin
          for (int q = 0; q < 4; ++q) bins[q * width + distance[c + q]] += value[j + c + q];
        for (; c < count; ++c) bins[distance[c]] += value[j + c];
      }
      for (int64_t h = 0; h <= n; ++h)
        out[h] += value[a] * (bins[h] + bins[width + h] + bins[2 * width + h] + bins[3 * width + h]);
    }
  });
  Tensor result = torch::stable::empty({n + 1}, ScalarType::Double);
  auto* out = static_cast<double*>(result.mutable_data_ptr());
  for (int64_t h = 0; h <= n; ++h) {
    out[h] = 0;
    for (int64_t i = 0; i < chunks; ++i) out[h] += partial[i * width + h];
  }
  return result;
}

}  // namespace
}  // namespace lazy::boolean

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("fwht_(Tensor(a!) x, int isa) -> Tensor(a!)");
  m.def("walsh_moments(Tensor bits, int rows, int degree, int isa) -> Tensor");
  m.def("walsh_analysis(Tensor bits, Tensor y, int degree, int isa) -> Tensor");
  m.def("walsh_synthesis(Tensor bits, Tensor coefficient, int rows, int degree, int isa) -> Tensor");
  m.def("walsh_gram(Tensor subsets, Tensor moments, int n, int isa) -> Tensor");
  m.def("hamming_lookup(Tensor a, Tensor b, Tensor table, int isa) -> Tensor");
  m.def("hamming_sums(Tensor rows, Tensor y, int n, int isa) -> Tensor");
  m.def("best_boolean_isa() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("fwht_", TORCH_BOX(&lazy::boolean::fwht_));
  m.impl("walsh_moments", TORCH_BOX(&lazy::boolean::walsh_moments));
  m.impl("walsh_analysis", TORCH_BOX(&lazy::boolean::walsh_analysis));
  m.impl("walsh_synthesis", TORCH_BOX(&lazy::boolean::walsh_synthesis));
  m.impl("walsh_gram", TORCH_BOX(&lazy::boolean::walsh_gram));
  m.impl("hamming_lookup", TORCH_BOX(&lazy::boolean::hamming_lookup));
  m.impl("hamming_sums", TORCH_BOX(&lazy::boolean::hamming_sums));
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CompositeExplicitAutograd, m) {
  m.impl("best_boolean_isa", TORCH_BOX(&lazy::boolean::best_level));
}
