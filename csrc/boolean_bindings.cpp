// The operators on the Boolean cube as torch sees them: checks, run-time choice of the ISA build, torch's thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "boolean.h"

namespace lazy::boolean {

#define LAZY_DECLARE(isa) namespace isa { const Kernels& kernels(); }
LAZY_DECLARE(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE(avx2)
LAZY_DECLARE(avx512_popcnt)
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kContiguousBytes = 524288;  // part of the transform that one worker does in its second-level cache
constexpr int kStrided = 10;                  // levels of one strided pass
constexpr int64_t kTileBytes = 524288;        // of one tile of it, in the second-level cache
constexpr int64_t kRowBytes = 4096;           // most bytes of one row of a tile

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
  STD_TORCH_CHECK(isa <= best, "The kernel level asked for (", isa, ") is above what this processor runs (", best,
                  "); ask for a lower one, or -1 for the best.");
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best : isa) {
    case 2: return avx512_popcnt::kernels();
    case 1: return avx2::kernels();
    default: break;
  }
#endif
  return portable::kernels();
}

// Calls unit(i) for i in [0, count), each once, on torch's threads; who is free takes the next.
template <class F>
void share(int64_t count, const F& unit) {
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) unit(i);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) unit(i);
  });
}

template <class T>
struct Aligned {
  explicit Aligned(int64_t n) : p(static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64))) {}
  ~Aligned() { std::free(p); }
  T* p;
};

template <class T, class Near, class Far>
void transform_rows(T* x, int64_t vectors, int levels, Near near, Far far) {
  constexpr int64_t kSize = sizeof(T);
  const int64_t length = int64_t{1} << levels, block = std::min<int64_t>(length, kContiguousBytes / sizeof(T));
  const int low = __builtin_ctzll(static_cast<uint64_t>(block));
  share(vectors * (length / block), [&](int64_t i) { near(x + i * block, low); });
  for (int done = low; done < levels;) {
    const int now = std::min(kStrided, levels - done);
    const int64_t stride = int64_t{1} << done, rows = int64_t{1} << now, groups = length / (stride * rows);
    const int64_t columns = std::min(kRowBytes, kTileBytes / rows) / kSize, tiles = stride / columns;
    share(vectors * groups * tiles / 8, [&](int64_t i) {
      Aligned<T> buffer(rows * columns);
      for (int64_t k = i * 8; k < (i + 1) * 8; ++k)
        far(x + (k / tiles) * stride * rows, {rows, stride, (k % tiles) * columns, columns}, buffer.p);
    });
    done += now;
  }
}

Tensor fwht_(Tensor x, int64_t isa) {
  const int64_t length = x.dim() ? x.size(x.dim() - 1) : 0;
  STD_TORCH_CHECK(length > 0 && (length & (length - 1)) == 0, "The last axis must be a power of two long, got ", length);
  STD_TORCH_CHECK(x.is_contiguous(), "The transform in place takes a contiguous tensor.");
  const Kernels& k = kernels_for(isa);
  const int levels = __builtin_ctzll(static_cast<uint64_t>(length));
  const int64_t vectors = x.numel() / length;
  if (x.scalar_type() == ScalarType::Double)
    transform_rows(static_cast<double*>(x.mutable_data_ptr()), vectors, levels, k.transform_f64, k.strided_f64);
  else if (x.scalar_type() == ScalarType::Float)
    transform_rows(static_cast<float*>(x.mutable_data_ptr()), vectors, levels, k.transform_f32, k.strided_f32);
  else
    STD_TORCH_CHECK(false, "The transform takes float32 and float64.");
  return x;
}

struct Table {
  Table(int64_t n, int64_t degree) : binomial((n + 1) * (degree + 1)), offset(degree + 2) {
    for (int64_t t = 0; t <= n; ++t)
      for (int64_t i = 0; i <= degree; ++i)
        binomial[t * (degree + 1) + i] = i == 0 ? 1 : t == 0 ? 0 : at(t - 1, i - 1, degree) + at(t - 1, i, degree);
    for (int64_t k = 0; k <= degree; ++k) offset[k + 1] = offset[k] + at(n, k, degree);
    order = {binomial.data(), offset.data(), static_cast<int>(degree)};
  }
  int64_t at(int64_t t, int64_t i, int64_t degree) const { return binomial[t * (degree + 1) + i]; }
  int64_t size() const { return offset.back(); }
  std::vector<int64_t> binomial, offset;
  Order order;
};

Columns columns_of(const Tensor& bits, int64_t rows, int64_t degree) {
  STD_TORCH_CHECK(bits.dim() == 2 && bits.is_contiguous() && bits.scalar_type() == ScalarType::Long,
                  "Packed columns are a contiguous int64 tensor of shape (n, words).");
  STD_TORCH_CHECK(rows >= 0 && rows < (int64_t{1} << 31) && bits.size(1) == (rows + 63) / 64,
                  "The number of words does not fit the number of rows.");
  STD_TORCH_CHECK(degree >= 0 && degree <= kMaxDegree && degree <= bits.size(0), "The degree is out of range.");
  return {static_cast<const uint64_t*>(bits.const_data_ptr()), bits.size(0), bits.size(1), rows};
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

void check_doubles(const Tensor& t, int64_t count, const char* what) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double && t.is_contiguous() && t.numel() == count, what,
                  " must be ", count, " contiguous float64 numbers.");
}

Tensor walsh_analysis(Tensor bits, Tensor y, int64_t degree, int64_t isa) {
  const int64_t rows = y.numel();
  const Columns c = columns_of(bits, rows, degree);
  check_doubles(y, rows, "y");
  const Table table(c.n, degree);
  Aligned<double> padded(c.words * 64 + 8);
  const double* in = static_cast<const double*>(y.const_data_ptr());
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
  check_doubles(coefficient, table.size(), "The coefficients");
  Tensor result = torch::stable::empty({rows}, ScalarType::Double);
  Aligned<double> padded(c.words * 64 + 8);
  const double* in = static_cast<const double*>(coefficient.const_data_ptr());
  const Kernels& k = kernels_for(isa);
  share((c.words + 31) / 32, [&](int64_t i) {
    k.synthesis(c, table.order, 32 * i, std::min(c.words, 32 * (i + 1)), in, padded.p);
  });
  std::copy(padded.p, padded.p + rows, static_cast<double*>(result.mutable_data_ptr()));
  return result;
}

Tensor walsh_gram(Tensor subsets, Tensor moments, int64_t n, int64_t isa) {
  STD_TORCH_CHECK(subsets.dim() == 2 && subsets.is_contiguous() && subsets.scalar_type() == ScalarType::Short,
                  "Subsets are a contiguous int16 tensor of shape (count, degree).");
  const int64_t size = subsets.size(0), degree = subsets.size(1), wide = std::min(n, 2 * degree);
  const Table table(n, wide);
  STD_TORCH_CHECK(moments.scalar_type() == ScalarType::Int && moments.is_contiguous() && moments.numel() == table.size(),
                  "The moments are those of twice the degree.");
  Tensor result = torch::stable::empty({size, size}, ScalarType::Float);
  float* out = static_cast<float*>(result.mutable_data_ptr());
  const auto* sets = static_cast<const int16_t*>(subsets.const_data_ptr());
  const auto* values = static_cast<const int32_t*>(moments.const_data_ptr());
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

Tensor gram_product(Tensor gram, Tensor x, int64_t isa) {
  const int64_t size = x.numel();
  STD_TORCH_CHECK(gram.dim() == 2 && gram.size(0) == size && gram.size(1) == size && gram.is_contiguous() &&
                      gram.scalar_type() == ScalarType::Float,
                  "The Gram matrix is a contiguous square float32 tensor.");
  check_doubles(x, size, "x");
  Tensor result = torch::stable::empty({size}, ScalarType::Double);
  const auto* g = static_cast<const float*>(gram.const_data_ptr());
  const auto* in = static_cast<const double*>(x.const_data_ptr());
  auto* out = static_cast<double*>(result.mutable_data_ptr());
  const Kernels& k = kernels_for(isa);
  share((size + 127) / 128,
        [&](int64_t i) { k.gram_product(g, size, 128 * i, std::min(size, 128 * (i + 1)), in, out); });
  return result;
}

const uint64_t* packed_rows(const Tensor& t) {
  STD_TORCH_CHECK(t.dim() == 2 && t.is_contiguous() && t.scalar_type() == ScalarType::Long,
                  "Packed rows are a contiguous int64 tensor of shape (rows, words).");
  return static_cast<const uint64_t*>(t.const_data_ptr());
}

Tensor hamming_lookup(Tensor a, Tensor b, Tensor table, int64_t isa) {
  const uint64_t *left = packed_rows(a), *right = packed_rows(b);
  const int64_t words = a.size(1), rows = a.size(0), columns = b.size(0);
  STD_TORCH_CHECK(b.size(1) == words, "Both sides must have the same number of words.");
  check_doubles(table, table.numel(), "The table");
  STD_TORCH_CHECK(table.numel() > 64 * (words - 1), "The table needs a value for each distance.");
  Tensor result = torch::stable::empty({rows, columns}, ScalarType::Double);
  auto* out = static_cast<double*>(result.mutable_data_ptr());
  std::vector<double> values(64 * words + 1, 0.0);
  const auto* given = static_cast<const double*>(table.const_data_ptr());
  std::copy(given, given + std::min<int64_t>(table.numel(), static_cast<int64_t>(values.size())), values.begin());
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

// out[h] = sum of y_a y_b over pairs a < b at Hamming distance h.
Tensor hamming_sums(Tensor rows, Tensor y, int64_t n, int64_t isa) {
  const uint64_t* bits = packed_rows(rows);
  const int64_t m = rows.size(0), words = rows.size(1), width = 64 * words + 1, chunk = 128;
  check_doubles(y, m, "y");
  STD_TORCH_CHECK(n >= 0 && n < width, "n does not fit the packed rows.");
  const auto* value = static_cast<const double*>(y.const_data_ptr());
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
  m.def("gram_product(Tensor gram, Tensor x, int isa) -> Tensor");
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
  m.impl("gram_product", TORCH_BOX(&lazy::boolean::gram_product));
  m.impl("hamming_lookup", TORCH_BOX(&lazy::boolean::hamming_lookup));
  m.impl("hamming_sums", TORCH_BOX(&lazy::boolean::hamming_sums));
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CompositeExplicitAutograd, m) {
  m.impl("best_boolean_isa", TORCH_BOX(&lazy::boolean::best_level));
}
