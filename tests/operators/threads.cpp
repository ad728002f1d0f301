// Every kernel at every level on threads of the driver's own, in memory of just the right size, for the sanitizers
// (scripts/sanitize); what several threads compute must be, bit for bit, what one computes.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "boolean.h"
#include "buckets.h"
#include "elementwise.h"
#include "fingerprint.h"
#include "problem.h"

namespace lazy {

#define DECLARE(isa)                                     \
  namespace isa {                                        \
  void kernel(const Problem&, int threads, Parallel);    \
  void jsrelu(const Elements&, int64_t, int64_t);        \
  BucketKernels bucket_kernels();                        \
  uint64_t row_print(const uint8_t*, int64_t);           \
  }                                                      \
  namespace boolean::isa { const Kernels& kernels(); }
DECLARE(portable)
DECLARE(avx2)
DECLARE(avx512)
DECLARE(avx512_vnni)
namespace boolean::avx512_popcnt { const Kernels& kernels(); }

namespace {

constexpr int kThreads = 4;
std::mt19937 chance(0);

float any() { return std::normal_distribution<float>()(chance); }

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s: several threads compute something else than one\n", what);
  std::exit(1);
}

void pool(int64_t workers, void (*body)(void*), void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < workers; ++i) threads.emplace_back(body, context);
  for (auto& t : threads) t.join();
}

// One thread does what several could: a layout for several threads sums in its own order.
void alone(int64_t workers, void (*body)(void*), void* context) {
  for (int64_t i = 0; i < workers; ++i) body(context);
}

template <class F>
void share(int threads, int64_t count, const F& unit) {
  struct Work { std::atomic<int64_t> next{0}; int64_t count; const F& unit; } work{{}, count, unit};
  pool(threads, [](void* p) {
    Work& w = *static_cast<Work*>(p);
    for (int64_t i; (i = w.next.fetch_add(1, std::memory_order_relaxed)) < w.count;) w.unit(i);
  }, &work);
}

// Numbers of one dtype, in as many bytes as the kernels may read and no more.
std::vector<uint8_t> numbers(Dtype type, int64_t count) {
  const int64_t size = type == Dtype::f32 ? 4 : type == Dtype::i8 ? 1 : 2;
  std::vector<uint8_t> bytes(count * size);
  for (int64_t i = 0; i < count; ++i) {
    const float x = any() * 0.3f;
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (type == Dtype::bf16) bits >>= 16;
    if (type == Dtype::f16) bits = (bits >> 16 & 0x8000) | (0x2c00 + chance() % 0x0fff);
    if (type == Dtype::i8) bits = chance() % 255;
    std::memcpy(&bytes[i * size], &bits, size);
  }
  return bytes;
}

struct Block {
  Block(int64_t tokens, int64_t d_in, int64_t d_hidden, int64_t d_out, Dtype type, bool gated, int planes) {
    p = {};
    p.tokens = tokens, p.d_in = d_in, p.d_hidden = d_hidden, p.d_out = d_out;
    p.padded_in = (d_in + 3) / 4 * 4, p.dtype = type, p.gated = gated, p.planes = planes;
    p.low = 1, p.high = -1;
    const int64_t padded = (d_hidden + kPanel - 1) / kPanel * kPanel;
    certificate.assign(6 * padded, 1e-3f);
    for (int64_t i = 0; i < padded; ++i) {
      certificate[i] = 0.01f;
      certificate[padded + i] = any() - 0.5f;
      certificate[5 * padded + i] = 1e30f;
    }
    const float* c = certificate.data();
    p.certificate = {c, c + padded, c + 2 * padded, c + 3 * padded, c + 4 * padded, c + 5 * padded};
    const auto hold = [&](Dtype t, int64_t n) { return held.emplace_back(numbers(t, n)).data(); };
    held.reserve(9);
    p.x = hold(type, tokens * d_in);
    p.sketch = hold(Dtype::i8, padded * p.padded_in);
    p.first_rows = hold(type, d_hidden * d_in);
    if (gated) p.up_rows = hold(type, d_hidden * d_in), p.up_bias = hold(type, d_hidden);
    p.down_rows = hold(type, d_hidden * d_out);
    p.down_bias = hold(type, d_out);
  }

  std::vector<uint8_t> run(Kernel kernel, int threads, Parallel parallel) const {
    std::vector<uint8_t> y(p.tokens * p.d_out * (p.dtype == Dtype::f32 ? 4 : 2), 0xff);
    int64_t counts[2] = {};
    Problem mine = p;
    mine.y = y.data();
    mine.counts = counts;
    kernel(mine, threads, parallel);
    const auto* bytes = reinterpret_cast<const uint8_t*>(counts);
    y.insert(y.end(), bytes, bytes + sizeof counts);
    return y;
  }

  Problem p;
  std::vector<float> certificate;
  std::vector<std::vector<uint8_t>> held;
};

void blocks(Kernel kernel) {
  for (const Dtype type : {Dtype::f32, Dtype::bf16, Dtype::f16})
    for (const int64_t tokens : {1, 3, 70, 300})
      for (const auto& [d_in, d_hidden, d_out] : {std::array<int64_t, 3>{1, 1, 1}, {37, 70, 24}, {130, 700, 300}})
        for (const bool gated : {false, true}) {
          const Block b(tokens, d_in, d_hidden, d_out, type, gated, 1 + static_cast<int>(tokens) % 2);
          for (const int threads : {1, kThreads})
            require(b.run(kernel, threads, pool) == b.run(kernel, threads, alone), "sparse_mlp");
          const auto two = b.run(kernel, 2, alone);
          share(2, 2, [&](int64_t) { require(b.run(kernel, 2, pool) == two, "sparse_mlp, called twice at once"); });
        }
}

void elements(ElementKernel kernel) {
  for (const Dtype type : {Dtype::f32, Dtype::bf16, Dtype::f16})
    for (const float cap : {1.f, INFINITY}) {
      const int64_t n = 1027;
      const auto x = numbers(type, n), g = numbers(type, n);
      const auto pass = [&](int threads, bool backward) {
        std::vector<uint8_t> out(x.size());
        const Elements e = {type, x.data(), backward ? g.data() : nullptr, out.data(), 0.5f, cap};
        share(threads, 13, [&](int64_t i) { kernel(e, 79 * i, std::min<int64_t>(n, 79 * (i + 1))); });
        return out;
      };
      for (const bool backward : {false, true}) require(pass(kThreads, backward) == pass(1, backward), "jsrelu");
    }
}

void buckets(const BucketKernels& k) {
  const int64_t rows = 900, features = 5, hashes = 3, outputs = 2;
  std::vector<float> x(rows * features);
  std::vector<double> w(features * 8), b(8), values(rows * outputs * (1 + features));
  for (auto& v : x) v = std::round(any());
  for (auto& v : w) v = std::round(4 * any()) / 4;
  for (auto& v : values) v = any();
  const Affine a = {x.data(), true, rows, features, hashes, 8, w.data(), b.data(), 0};
  std::vector<int32_t> z(rows * hashes), keys(rows * hashes);
  std::vector<int64_t> index(2048), slots(rows), found(rows), predicted(rows);
  std::vector<double> one(rows * outputs), many(rows * outputs);
  Table t = {index.data(), index.size() - 1, keys.data(), hashes, rows, 0};
  int64_t done = 0;
  share(kThreads, 9, [&](int64_t i) { k.hash(a, 100 * i, 100 * (i + 1), z.data()); });
  k.insert(t, z.data(), 0, rows, slots.data(), &done);
  k.rehash(t);
  share(kThreads, 9, [&](int64_t i) { k.find(t, z.data(), 100 * i, 100 * (i + 1), found.data()); });
  require(done == rows && found == slots, "bucket_find");
  const int64_t columns = outputs * (1 + features), words = Packed::words_of(hashes, columns), places = 2 * t.count;
  std::vector<int64_t> records(places * words);
  std::vector<uint16_t> tags(places + Packed::kNear);
  const Packed p = {records.data(), tags.data(), places, words, hashes, columns};
  k.pack(keys.data(), values.data(), t.count, p);
  k.predict(a, p, outputs, 0, rows, one.data(), predicted.data());
  share(kThreads, 9, [&](int64_t i) {
    k.predict(a, p, outputs, 100 * i, 100 * (i + 1), many.data(), predicted.data());
  });
  require(one == many && predicted == slots, "bucket_predict");
}

// Of rows of every length up to two strides, each in memory of its own.
std::vector<uint64_t> prints(RowPrint print, int threads) {
  std::vector<std::vector<uint8_t>> rows;
  for (int64_t bytes = 0; bytes <= 513; ++bytes) rows.push_back(numbers(Dtype::i8, bytes));
  std::vector<uint64_t> out(rows.size());
  share(threads, static_cast<int64_t>(rows.size()), [&](int64_t i) { out[i] = print(rows[i].data(), rows[i].size()); });
  return out;
}

std::vector<double> cube(const boolean::Kernels& k, int threads) {
  using namespace boolean;
  const int64_t n = 7, rows = 3000, words = (rows + 63) / 64;
  const int degree = 4;
  std::mt19937_64 source(1);
  std::vector<uint64_t> bits(n * words);
  for (int64_t i = 0; i < n * words; ++i) bits[i] = source() & (i % words == words - 1 ? (1ull << rows % 64) - 1 : ~0ull);
  std::vector<int64_t> binomial((n + 1) * (degree + 1)), offset(degree + 2);
  const auto at = [&](int64_t t, int i) -> int64_t& { return binomial[t * (degree + 1) + i]; };
  for (int64_t t = 0; t <= n; ++t)
    for (int i = 0; i <= degree; ++i) at(t, i) = i == 0 ? 1 : t == 0 ? 0 : at(t - 1, i - 1) + at(t - 1, i);
  for (int i = 0; i <= degree; ++i) offset[i + 1] = offset[i] + at(n, i);
  const Columns c = {bits.data(), n, words, rows};
  const Order order = {binomial.data(), offset.data(), degree};
  std::vector<double> y(words * 64), sums(offset.back()), back(words * 64);
  for (int64_t i = 0; i < rows; ++i) y[i] = static_cast<double>(source() % 1000) / 7;
  std::vector<int32_t> moments(offset.back());
  moments[0] = rows;
  share(threads, n * n, [&](int64_t u) {
    const int64_t first = u / n, second = u % n == first ? -1 : u % n;
    if (second >= 0 && second < first) return;
    k.moments(c, order, first, second, moments.data());
    k.analysis(c, order, first, second, y.data(), sums.data());
  });
  share(threads, (words + 31) / 32, [&](int64_t i) {
    k.synthesis(c, order, 32 * i, std::min(words, 32 * (i + 1)), sums.data(), back.data());
  });
  std::vector<int16_t> pairs;  // all sets of at most two elements, in their order
  for (int16_t b = -1; b < n; ++b)
    for (int16_t a = -1; a < n; ++a)
      if ((b == -1) || (a < b && a >= 0)) pairs.insert(pairs.end(), {a, b});
  const int64_t size = static_cast<int64_t>(pairs.size()) / 2;
  std::vector<float> gram(size * size);
  share(threads, (size + 7) / 8, [&](int64_t i) {
    for (int64_t column = 0; column <= 8 * i; column += 8)
      k.gram(pairs.data(), order, moments.data(), size, 2, 8 * i, std::min(size, 8 * (i + 1)), column,
             std::min(size, column + 8), gram.data());
  });
  std::vector<double> wide(1 << 12);
  std::vector<float> narrow(1 << 12);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = narrow[i] = static_cast<float>(source() % 100);
  share(threads, 4, [&](int64_t i) {
    k.transform_f64(wide.data() + 1024 * i, 10, i < 3 ? wide.data() + 1024 * (i + 1) : nullptr);
    k.transform_f32(narrow.data() + 1024 * i, 10, i < 3 ? narrow.data() + 1024 * (i + 1) : nullptr);
  });
  share(threads, 2, [&](int64_t i) {
    k.strided_f64(wide.data(), {4, 1024, 512 * i, 512}, nullptr);
    k.strided_f32(narrow.data(), {4, 1024, 512 * i, 512}, nullptr);
  });
  share(threads, 2, [&](int64_t i) {
    std::vector<double> buffer(16 * (128 + buffer_gap<double>));
    std::vector<float> single(16 * (128 + buffer_gap<float>));
    k.strided_f64(wide.data(), {16, 256, 128 * i, 128}, buffer.data());
    k.strided_f32(narrow.data(), {16, 256, 128 * i, 128}, single.data());
  });
  std::vector<int32_t> apart(n * n);
  share(threads, n, [&](int64_t i) { k.distances(&bits[i * words], bits.data(), n, words, &apart[i * n]); });
  std::vector<double> all(sums);
  all.insert(all.end(), back.begin(), back.begin() + rows);
  all.insert(all.end(), moments.begin(), moments.end());
  all.insert(all.end(), gram.begin(), gram.end());
  all.insert(all.end(), wide.begin(), wide.end());
  all.insert(all.end(), narrow.begin(), narrow.end());
  all.insert(all.end(), apart.begin(), apart.end());
  return all;
}

void level(const char* name, bool runs, Kernel kernel, ElementKernel jsrelu, const BucketKernels& bucket, RowPrint print) {
  if (runs) {
    blocks(kernel);
    elements(jsrelu);
    buckets(bucket);
    const auto here = chance;
    const auto one = prints(portable::row_print, 1);
    chance = here;
    require(prints(print, kThreads) == one, "fingerprint");
  }
  std::printf("%s: %s\n", name, runs ? "the same on several threads" : "not on this processor");
}

}  // namespace
}  // namespace lazy

int main() {
  using namespace lazy;
  __builtin_cpu_init();
  const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool wide = narrow && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool vnni = wide && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  level("portable", true, portable::kernel, portable::jsrelu, portable::bucket_kernels(), portable::row_print);
  level("avx2", narrow, avx2::kernel, avx2::jsrelu, avx2::bucket_kernels(), avx2::row_print);
  level("avx512", wide, avx512::kernel, avx512::jsrelu, avx512::bucket_kernels(), avx512::row_print);
  level("avx512_vnni", vnni, avx512_vnni::kernel, avx512_vnni::jsrelu, avx512_vnni::bucket_kernels(), avx512_vnni::row_print);
  const auto one = cube(boolean::portable::kernels(), 1);
  require(cube(boolean::portable::kernels(), kThreads) == one, "the Boolean cube");
  if (narrow) require(cube(boolean::avx2::kernels(), kThreads) == one, "the Boolean cube with avx2");
  if (wide && __builtin_cpu_supports("avx512vpopcntdq"))
    require(cube(boolean::avx512_popcnt::kernels(), kThreads) == one, "the Boolean cube with avx512");
  std::puts("the Boolean cube: the same on several threads and at every level");
}
