// Products with what fires as torch sees them; included by bindings.cpp after packing_bindings.h, which reads the bits.
#pragma once
#include "checks.h"
#include "fired.h"

namespace lazy {

#define LAZY_DECLARE_FIRED(isa) \
  namespace isa { FiredKernels fired_kernels(); }
LAZY_DECLARE_FIRED(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_FIRED(avx2)
LAZY_DECLARE_FIRED(avx512)
LAZY_DECLARE_FIRED(avx512_vnni)
#endif

namespace {

FiredKernels fired_level(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return avx512_vnni::fired_kernels();
    case 2: return avx512::fired_kernels();
    case 1: return avx2::fired_kernels();
    default: break;
  }
#endif
  return portable::fired_kernels();
}

// The bits of (tokens, neurons), and where each token's values begin.
std::vector<int64_t> read_fired(FiredProblem& p, const Tensor& bits, int64_t neurons, int64_t width) {
  LAZY_CHECK(bits.dim() == 2, "The bits of what fires are a matrix, one row a token, got ", bits.dim(), " axes.");
  LAZY_CHECK(neurons >= 0 && neurons <= (int64_t{1} << 31), "A layer has from 0 to 2^31 neurons, got ", neurons, ".");
  LAZY_CHECK(width >= 16 && width % 16 == 0 && width <= 32768,
             "The kernels take rows of 16 to 32768 features, a multiple of 16, got ", width, "; use the dense product.");
  Packing packing = {};
  packing.rows = bits.size(0);
  packing.width = neurons;
  packing.bytes = (neurons + 7) / 8;
  LAZY_CHECK(packing.rows <= (int64_t{1} << 31), "There are at most 2^31 tokens, got ", packing.rows, "; pass less at once.");
  std::vector<int64_t> starts = starts_of(packing, bits);
  starts.resize(static_cast<size_t>(packing.rows) + 1, 0);
  p.tokens = packing.rows;
  p.neurons = neurons;
  p.width = width;
  p.bytes = packing.bytes;
  p.bits = packing.bits;
  return starts;
}

int64_t columns_of(const char* what, const Tensor& t) {
  LAZY_CHECK(t.dim() == 2, what, " is a matrix, got ", t.dim(), " axes.");
  return t.size(1);
}

void over_fired_panels(const FiredProblem& p, void (*run)(const FiredProblem&, int64_t, int64_t)) {
  const int64_t panels = (p.neurons + kFiredNeurons - 1) / kFiredNeurons;
  torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

Tensor fired_rows(Tensor bits, Tensor values, Tensor rows, int64_t isa) {
  FiredProblem p = {};
  const int64_t width = columns_of("A matrix of neurons' rows", rows);
  const std::vector<int64_t> starts = read_fired(p, bits, rows.size(0), width);
  p.starts = starts.data();
  p.values = read<float>("The values of what fires", values, ScalarType::Float, {starts.back()});
  p.rows = read<float>("The neurons' rows", rows, ScalarType::Float, {p.neurons, p.width});
  const FiredKernels run = fired_level(isa);
  product("The result", product("The result", p.tokens, p.width), 4);
  Tensor out = torch::stable::empty({p.tokens, p.width}, ScalarType::Float);
  p.out = static_cast<float*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, p.tokens, 16, [&](int64_t begin, int64_t end) { run.rows(p, begin, end); });
  return out;
}

Tensor fired_columns(Tensor bits, Tensor values, Tensor dense, int64_t neurons, int64_t isa) {
  FiredProblem p = {};
  const std::vector<int64_t> starts = read_fired(p, bits, neurons, columns_of("A matrix of tokens", dense));
  p.starts = starts.data();
  p.values = read<float>("The values of what fires", values, ScalarType::Float, {starts.back()});
  p.dense = read<float>("The tokens", dense, ScalarType::Float, {p.tokens, p.width});
  const FiredKernels run = fired_level(isa);
  product("The result", product("The result", p.neurons, p.width), 4);
  Tensor out = torch::stable::empty({p.neurons, p.width}, ScalarType::Float);
  p.out = static_cast<float*>(out.mutable_data_ptr());
  over_fired_panels(p, run.columns);
  return out;
}

Tensor fired_dots(Tensor bits, Tensor dense, Tensor rows, int64_t isa) {
  FiredProblem p = {};
  const int64_t width = columns_of("A matrix of neurons' rows", rows);
  const std::vector<int64_t> starts = read_fired(p, bits, rows.size(0), width);
  p.starts = starts.data();
  p.dense = read<float>("The tokens", dense, ScalarType::Float, {p.tokens, p.width});
  p.rows = read<float>("The neurons' rows", rows, ScalarType::Float, {p.neurons, p.width});
  const FiredKernels run = fired_level(isa);
  Tensor out = torch::stable::empty({starts.back()}, ScalarType::Float);
  p.out = static_cast<float*>(out.mutable_data_ptr());
  over_fired_panels(p, run.dots);
  return out;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("fired_rows(Tensor bits, Tensor values, Tensor rows, int isa=-1) -> Tensor");
  m.def("fired_columns(Tensor bits, Tensor values, Tensor dense, int neurons, int isa=-1) -> Tensor");
  m.def("fired_dots(Tensor bits, Tensor dense, Tensor rows, int isa=-1) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("fired_rows", TORCH_BOX(&lazy::fired_rows));
  m.impl("fired_columns", TORCH_BOX(&lazy::fired_columns));
  m.impl("fired_dots", TORCH_BOX(&lazy::fired_dots));
}
