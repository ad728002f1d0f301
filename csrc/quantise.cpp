// Weights to bytes and scales, as ops/quantised/format.py defines them: the same bits at every ISA level, so compiled
// without contraction.
#include <algorithm>

#include "quantise.h"
#include "simd.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

constexpr int64_t kTile = 32;  // rows that are read together where numbers of a row lie apart
constexpr int64_t kColumns = 16;
constexpr int64_t kMostGroup = 128;
constexpr float kTops[5] = {8.0f, 7.6f, 7.2f, 8.4f, 8.9f};
constexpr int32_t kInfinity = 0x7f800000;
// The largest scales whose multiples are finite.
constexpr float kMost8 = static_cast<float>(3.4028234663852886e38 / 127 * (1 - 0x1p-23));
constexpr float kMost4 = 0x1.fep127f / 8;

// To the nearest whole number, ties to even, for |x| < 2^22.
template <class V>
LAZY_INLINE V whole(V x) {
  return (x + 12582912.f) - 12582912.f;
}

LAZY_INLINE v16f clamped(v16f x, float low, float top) {
  x = select(x < low, splat(low), x);
  return select(x > top, splat(top), x);
}

LAZY_INLINE float nearest(float x, float low, float top) {
  x = x < low ? low : x;
  return whole(x > top ? top : x);
}

// Bits of the largest magnitude: they order as magnitudes do, and NaN and infinity lie above all others.
LAZY_INLINE int32_t largest(const float* row, int64_t n) {
  int32_t most = 0;
  for (int64_t k = 0; k < n; ++k) {
    const int32_t bits = load_as<int32_t>(row + k) & 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return most;
}

template <class T>
LAZY_INLINE void widen_row(const T* from, float* to, int64_t n) {
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const v16f v = load16(from + k);
    store(to + k, v);
  }
  for (; k < n; ++k) to[k] = to_float(from[k]);
}

template <class T>
void widen_tile(const QuantiseProblem& p, int64_t first, int64_t rows, float* to) {
  const T* from = static_cast<const T*>(p.weight);
  if (p.stride == 1) {
    for (int64_t r = 0; r < rows; ++r) widen_row(from + (first + r) * p.row_stride, to + r * p.width, p.width);
    return;
  }
  float some[kColumns][kTile];  // so that every row is written a cache line at a time
  for (int64_t k0 = 0; k0 < p.width; k0 += kColumns) {
    const int64_t columns = k0 + kColumns < p.width ? kColumns : p.width - k0;
    for (int64_t k = 0; k < columns; ++k) widen_row(from + first * p.row_stride + (k0 + k) * p.stride, some[k], rows);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < columns; ++k) to[r * p.width + k0 + k] = some[k][r];
  }
}

// The scale of a group, and its numbers in [-8, 7] plus 8.
template <int Group>
bf16 quantise_group(const float* values, uint8_t* out) {
  constexpr int kVectors = Group / 16;
  v16f v[kVectors];
  for (int j = 0; j < kVectors; ++j) v[j] = load16(values + 16 * j);
  const int32_t most = largest(values, Group);
  int at = Group;
  for (int k = Group - 1; k >= 0; --k) at = (load_as<int32_t>(values + k) & 0x7fffffff) == most ? k : at;
  const float extreme = values[at];
  bf16 best = {0};
  float best_scale = 0, best_error = 0;
  for (int c = 0; c < 5; ++c) {
    const bf16 stored = narrow(std::min(std::max(extreme / -kTops[c], -kMost4), kMost4), bf16{});
    const float scale = to_float(stored);
    const v16f safe = splat(scale == 0 ? 1.f : scale), keep = splat(scale == 0 ? 0.f : 1.f), by = splat(scale);
    v16f error[kVectors];
    for (int j = 0; j < kVectors; ++j) {
      const v16f d = whole(clamped(v[j] / safe, -8.f, 7.f)) * keep * by - v[j];
      error[j] = d * d;
    }
    for (int n = kVectors / 2; n > 0; n /= 2)
      for (int j = 0; j < n; ++j) error[j] += error[j + n];
    const float total = reduce(error[0]);
    if (c > 0 && !(total < best_error)) continue;
    best = stored;
    best_scale = scale;
    best_error = total;
  }
  const v16f safe = splat(best_scale == 0 ? 1.f : best_scale), keep = splat(best_scale == 0 ? 0.f : 1.f);
  for (int j = 0; j < kVectors; ++j) {
    const v16i q = convert<v16i>(whole(clamped(v[j] / safe, -8.f, 7.f)) * keep + 8.f);
    for (int i = 0; i < 16; ++i) out[16 * j + i] = static_cast<uint8_t>(q[i]);
  }
  return best;
}

using GroupKernel = bf16 (*)(const float*, uint8_t*);

// Steps by two: the even one in the low nibbles, the odd one in the high nibbles.
void store_row(const QuantiseProblem& p, const uint8_t* q, const bf16* group, int64_t row) {
  uint8_t* bytes = p.bytes + row * (p.padded / 2);
  bf16* scale = static_cast<bf16*>(p.scale) + row * p.blocks.count * 16;
  int64_t start = 0;
  for (int b = 0; b < p.blocks.count; ++b, scale += 16) {
    const int64_t steps = p.blocks.steps[b];
    for (int64_t lane = 0; lane < 16; ++lane) {
      const int64_t from = start + lane * 4 * steps;
      scale[lane] = from < p.width ? group[from / p.group] : bf16{0};
      for (int64_t pair = 0; pair < steps / 2; ++pair) {
        const uint32_t low = load_as<uint32_t>(q + from + 8 * pair), high = load_as<uint32_t>(q + from + 8 * pair + 4);
        const uint32_t both = low | high << 4;
        std::memcpy(bytes + start / 2 + pair * 64 + lane * 4, &both, 4);
      }
    }
    start += 64 * steps;
  }
}

void store_neuron(const QuantiseProblem& p, const uint8_t* q, const bf16* group, int64_t row) {
  uint8_t* bytes = p.bytes + row * (p.width / 2);
  for (int64_t k = 0; k < p.width; k += 32)
    for (int64_t i = 0; i < 16; ++i) bytes[k / 2 + i] = static_cast<uint8_t>(q[k + i] | q[k + 16 + i] << 4);
  std::memcpy(static_cast<bf16*>(p.scale) + row * (p.width / p.group), group, sizeof(bf16) * (p.width / p.group));
}

void quantise_row8(const QuantiseProblem& p, const float* values, int32_t most, int64_t row) {
  const float scale = std::min(load_as<float>(&most) / 127.f, kMost8), safe = scale == 0 ? 1.f : scale, keep = scale == 0 ? 0.f : 1.f;
  static_cast<float*>(p.scale)[row] = scale;
  uint8_t* bytes = p.bytes + row * p.padded;
  const int plus = p.by_neuron ? 0 : 128;
  for (int64_t k = 0; k < p.width; ++k)
    bytes[k] = static_cast<uint8_t>(static_cast<int>(nearest(values[k] / safe, -127.f, 127.f) * keep) + plus);
  std::memset(bytes + p.width, plus, static_cast<size_t>(p.padded - p.width));
}

}  // namespace

int64_t quantise(const QuantiseProblem& p, int64_t begin, int64_t end) {
  static thread_local Scratch scratch;
  const int64_t tile = p.stride == 1 ? 1 : kTile, groups = p.bits == 4 ? p.width / p.group : 0;
  float* values = reinterpret_cast<float*>(
      scratch.at_least(static_cast<size_t>(4 * (tile * p.width + 16) + p.padded + 2 * groups + 64)));
  uint8_t* q = reinterpret_cast<uint8_t*>(values + tile * p.width + 16);
  bf16* group = reinterpret_cast<bf16*>(q + p.padded);
  const GroupKernel kernel = p.group == 32 ? quantise_group<32> : p.group == 64 ? quantise_group<64> : quantise_group<kMostGroup>;
  int64_t bad = 0;
  for (int64_t first = begin; first < end; first += tile) {
    const int64_t rows = first + tile < end ? tile : end - first;
    switch (p.dtype) {
      case Dtype::bf16: widen_tile<bf16>(p, first, rows, values); break;
      case Dtype::f16: widen_tile<f16>(p, first, rows, values); break;
      default: widen_tile<float>(p, first, rows, values);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = values + r * p.width;
      const int32_t most = largest(row, p.width);
      if (most >= kInfinity) {
        ++bad;
      } else if (p.bits == 8) {
        quantise_row8(p, row, most, first + r);
      } else {
        for (int64_t g = 0; g < groups; ++g) group[g] = kernel(row + g * p.group, q + g * p.group);
        if (!p.by_neuron) std::memset(q + p.width, 8, static_cast<size_t>(p.padded - p.width));
        p.by_neuron ? store_neuron(p, q, group, first + r) : store_row(p, q, group, first + r);
      }
    }
  }
  return bad;
}

}  // namespace LAZY_ISA
}  // namespace lazy
