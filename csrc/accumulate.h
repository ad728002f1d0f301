// The second pass of a sparse block: what fired, times its rows of `down`.
#pragma once
#include "dense_sums.h"
#include "firing.h"

namespace lazy {
namespace LAZY_ISA {

// The rows of `down` that the panels [begin, end) of a tile want, and for how many tokens altogether. `row(neuron, c0)` names one.
template <class Row, class RowAt>
int64_t gather(const Layout& l, char* lists, int64_t begin, int64_t end, int64_t c0, const RowAt& row,
               std::vector<Wanted<Row>>& wanted) {
  wanted.clear();
  int64_t pairs = 0;
  for (int64_t panel = begin; panel < end; ++panel) {
    Fired* f = l.fired(lists, panel);
    pairs += f->pairs;
    const float* value = values_of(f);
    const uint8_t* token = tokens_of(f, l.tile);
    for (int32_t e = 0; e < f->neurons; ++e) {
      wanted.push_back({row(panel * kPanel + f->index[e], c0), value, token, f->count[e]});
      value += f->count[e];
      token += f->count[e];
    }
  }
  return pairs;
}

// Second pass: one share of the columns of a tile's output. Sums run over `segment` panels, then over segments.
template <class T, class Row, class RowAt>
void accumulate(const Layout& l, int64_t tile, int64_t task, char* lists, int64_t tokens, int64_t d_out,
                const void* bias_of, void* y_of, int64_t segment, const RowAt& row) {
  const int64_t t0 = tile * l.tile, count = std::min(l.tile, tokens - t0);
  const int64_t c0 = task * l.columns, width = std::min(l.columns, d_out - c0), stride = l.columns + 16;
  const size_t floats = static_cast<size_t>(count * stride);
  auto& wanted = own<Row, std::vector<Wanted<Row>>>();
  alignas(64) float sums[kAccumulators + 16 * kMaxTile], total[kAccumulators + 16 * kMaxTile];
  if (l.panels == 0) std::memset(total, 0, floats * sizeof(float));  // a block without neurons
  for (int64_t begin = 0; begin < l.panels; begin += segment) {
    const int64_t pairs = gather(l, lists, begin, std::min(begin + segment, l.panels), c0, row, wanted);
    if (begin > 0 && wanted.empty()) continue;
    if constexpr (kFinite<Row>) {
      if (DenseSums<Row>::pays(pairs, static_cast<int64_t>(wanted.size()), count)) {
        own<Row, DenseSums<Row>>().add(wanted, count, width, total, stride, begin == 0);
        continue;
      }
    }
    float* part = begin == 0 ? total : sums;
    std::memset(part, 0, floats * sizeof(float));
    Accumulation<Row>(part, stride, width, count).add(wanted);
    if (begin > 0)
      for (size_t i = 0; i < floats; ++i) total[i] += sums[i];
  }
  T* y = static_cast<T*>(y_of);
  const T* bias = static_cast<const T*>(bias_of);
  for (int64_t t = 0; t < count; ++t) {
    T* out = y + (t0 + t) * d_out + c0;
    const float* in = total + t * stride;
    for (int64_t k = 0; k < width; ++k) out[k] = narrow(bias ? in[k] + to_float(bias[c0 + k]) : in[k], T{});
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
