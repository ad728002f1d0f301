// Quantising as torch sees it; included by bindings.cpp after quantised_bindings.h, whose checks it shares.
#pragma once
#include "checks.h"
#include "quantise.h"

namespace lazy {

#define LAZY_DECLARE_QUANTISE(isa)                                    \
  namespace isa {                                                     \
  int64_t quantise(const QuantiseProblem&, int64_t, int64_t);         \
  }
LAZY_DECLARE_QUANTISE(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_QUANTISE(avx2)
LAZY_DECLARE_QUANTISE(avx512)
LAZY_DECLARE_QUANTISE(avx512_vnni)
#endif

namespace {

QuantiseKernel quantise_level(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return avx512_vnni::quantise;
    case 2: return avx512::quantise;
    case 1: return avx2::quantise;
    default: break;
  }
#endif
  return portable::quantise;
}

constexpr int64_t kQuantiseGrain = 1 << 16;  // weights that are worth a thread

// How many rows hold NaN or infinity; what is stored for these means nothing.
int64_t quantise(Tensor weight, Tensor bytes, Tensor scale, int64_t bits, int64_t group, bool by_neuron, int64_t isa) {
  check_group(bits, group);
  LAZY_CHECK(weight.dim() == 2, "Weights to quantise are a matrix, one row an output or a neuron, got ", weight.dim(),
             " axes.");
  QuantiseProblem p = {};
  p.dtype = dtype_of(weight);
  const int64_t rows = weight.size(0);
  p.width = weight.size(1);
  p.row_stride = weight.stride(0);
  p.stride = weight.stride(1);
  LAZY_CHECK(p.width >= 1 && p.width <= 32768, "Rows of 1 to 32768 weights are quantised, got ", p.width, ".");
  LAZY_CHECK(p.stride == 1 || p.row_stride == 1 || weight.is_contiguous(),
             "Weights to quantise lie side by side along one axis; pass a contiguous matrix.");
  if (p.stride != 1 && p.row_stride != 1) p.stride = 1;  // a single column or row
  p.bits = static_cast<int>(bits);
  p.group = bits == 8 ? 1 : group;
  LAZY_CHECK(p.width % p.group == 0, "Rows have ", p.width, " weights, which groups of ", group, " do not divide.");
  p.by_neuron = by_neuron;
  const int64_t step = bits == 8 ? 64 : 128;
  p.padded = by_neuron ? p.width : (p.width + step - 1) / step * step;
  if (bits == 4 && !by_neuron) p.blocks = Blocks(p.padded, group);
  const ScalarType stored = bits == 8 && by_neuron ? ScalarType::Char : ScalarType::Byte;
  p.bytes = write<uint8_t>("Quantised rows", bytes, stored, {rows, bits == 8 ? p.padded : p.padded / 2});
  p.scale = bits == 8      ? write<void>("The scales of int8 rows", scale, ScalarType::Float, {rows})
            : by_neuron ? write<void>("The scales of down", scale, ScalarType::BFloat16, {rows, p.width / p.group})
                        : write<void>("The scales of int4 rows", scale, ScalarType::BFloat16, {rows, p.blocks.count, 16});
  p.weight = weight.const_data_ptr();
  check_memory("The weight", weight, p.weight);
  const QuantiseKernel run = quantise_level(isa);
  std::atomic<int64_t> bad{0};
  const int64_t grain = std::max<int64_t>(32, kQuantiseGrain / p.width);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    bad.fetch_add(run(p, begin, end), std::memory_order_relaxed);
  });
  return bad.load();
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def(
      "quantise(Tensor weight, Tensor(a!) bytes, Tensor(b!) scale, int bits, int group, bool by_neuron, int isa=-1) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) { m.impl("quantise", TORCH_BOX(&lazy::quantise)); }
