// The quantised operators as torch sees them; included by bindings.cpp, which has headers and the choice of the ISA.
#pragma once
#include "checks.h"
#include "quantised.h"

namespace lazy {

#define LAZY_DECLARE_QUANTISED(isa)                                           \
  namespace isa {                                                             \
  void quantised_linear(const QuantisedProblem&, int threads, Parallel);      \
  void quantised_mlp(const QuantisedProblem&, int threads, Parallel);         \
  }
LAZY_DECLARE_QUANTISED(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_QUANTISED(avx2)
LAZY_DECLARE_QUANTISED(avx512)
LAZY_DECLARE_QUANTISED(avx512_vnni)
#endif

namespace {

struct QuantisedLevel {
  QuantisedKernel linear, mlp;
};

QuantisedLevel quantised_level(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return {avx512_vnni::quantised_linear, avx512_vnni::quantised_mlp};
    case 2: return {avx512::quantised_linear, avx512::quantised_mlp};
    case 1: return {avx2::quantised_linear, avx2::quantised_mlp};
    default: break;
  }
#endif
  return {portable::quantised_linear, portable::quantised_mlp};
}

void check_group(int64_t bits, int64_t group) {
  LAZY_CHECK(bits == 8 || bits == 4, "Quantised weights have 4 or 8 bits, got ", bits, ".");
  LAZY_CHECK(bits == 8 || group == 32 || group == 64 || group == 128, "int4 weights share scales in groups of 32, 64 or "
             "128, got ", group, ".");
}

// The shape of the input and the format of all weights.
QuantisedProblem quantised_problem(int64_t tokens, int64_t d_in, Dtype dtype, int64_t bits, int64_t group) {
  check_group(bits, group);
  QuantisedProblem p = {};
  p.d_in = d_in;
  LAZY_CHECK(p.d_in >= 1 && p.d_in <= 32768, "The kernel takes inputs of 1 to 32768 features, got ", p.d_in, ".");
  LAZY_CHECK(bits == 8 || p.d_in % group == 0, "The input has ", p.d_in, " features, which groups of ", group,
             " do not divide; quantise with another group size.");
  p.tokens = tokens;
  p.bits = static_cast<int>(bits);
  p.group = bits == 8 ? 1 : group;
  const int64_t step = bits == 8 ? 64 : 128;
  p.padded_in = (p.d_in + step - 1) / step * step;
  if (bits == 4) p.blocks = Blocks(p.padded_in, group);
  p.dtype = dtype;
  return p;
}

QuantisedProblem quantised_problem(const Tensor& x, int64_t bits, int64_t group) {
  LAZY_CHECK(x.dim() >= 1, "The input of a linear layer has at least one axis, got a single number.");
  const int64_t d_in = x.size(x.dim() - 1);
  return quantised_problem(d_in > 0 ? x.numel() / d_in : 0, d_in, dtype_of(x), bits, group);
}

QuantisedRows read_rows(const QuantisedProblem& p, ScalarType type, int64_t rows, const Tensor& bytes,
                        const Tensor& scale, const std::optional<Tensor>& bias) {
  QuantisedRows out;
  out.bytes = read_apart<uint8_t>("Quantised rows", bytes, ScalarType::Byte,
                                  {rows, p.bits == 8 ? p.padded_in : p.padded_in / 2}, &out.stride);
  out.scale = p.bits == 8 ? read_apart("The scales of int8 rows", scale, ScalarType::Float, {rows}, &out.scale_stride)
                          : read_apart("The scales of int4 rows", scale, ScalarType::BFloat16,
                                       {rows, p.blocks.count, 16}, &out.scale_stride);
  out.bias = read("The bias of quantised rows", bias, type, {rows});
  return out;
}

// Rows of `down`, one a neuron.
void read_down(QuantisedProblem& p, ScalarType type, const Tensor& down, const Tensor& scale,
               const std::optional<Tensor>& bias) {
  LAZY_CHECK(down.dim() == 2, "Quantised rows are a matrix, one row a neuron.");
  p.d_out = p.bits == 8 ? down.size(1) : 2 * down.size(1);
  LAZY_CHECK(p.bits == 8 || p.d_out % p.group == 0, "The output has ", p.d_out, " features, which groups of ", p.group,
             " do not divide; quantise with another group size.");
  if (p.bits == 8) {
    p.down = read_apart("The rows of down", down, ScalarType::Char, {p.d_hidden, p.d_out}, &p.down_stride);
    p.down_scale = read_apart("The scales of down", scale, ScalarType::Float, {p.d_hidden}, &p.down_scale_stride);
  } else {
    p.down = read_apart("The rows of down", down, ScalarType::Byte, {p.d_hidden, p.d_out / 2}, &p.down_stride);
    p.down_scale = read_apart("The scales of down", scale, ScalarType::BFloat16, {p.d_hidden, p.d_out / p.group},
                              &p.down_scale_stride);
  }
  p.down_bias = read("The bias of down", bias, type, {p.d_out});
}

int64_t useful_quantised_threads(const QuantisedProblem& p) {
  const double work = static_cast<double>(p.tokens) * static_cast<double>(p.d_hidden) * static_cast<double>(p.padded_in);
  const int64_t most = 1 + static_cast<int64_t>(std::min(work / 65536, 1e6));
  return std::min<int64_t>(torch::stable::get_num_threads(), most);
}

Tensor quantised_output(const Tensor& x, int64_t width) {
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = width;
  return torch::stable::empty(shape, x.scalar_type());
}

Tensor quantised_linear(Tensor x, Tensor rows, Tensor scale, std::optional<Tensor> bias, int64_t bits, int64_t group,
                        int64_t isa) {
  QuantisedProblem p = quantised_problem(x, bits, group);
  LAZY_CHECK(rows.dim() == 2, "Quantised rows are a matrix, one row an output.");
  p.d_hidden = rows.size(0);
  p.first = read_rows(p, x.scalar_type(), p.d_hidden, rows, scale, bias);
  const QuantisedLevel level = quantised_level(isa);
  const Tensor input = contiguous("The input", x);
  Tensor y = quantised_output(x, p.d_hidden);
  p.x = input.const_data_ptr();
  p.y = y.mutable_data_ptr();
  if (p.tokens > 0 && p.d_hidden > 0) level.linear(p, static_cast<int>(useful_quantised_threads(p)), run_on_pool);
  return y;
}

Tensor quantised_mlp(Tensor x, Tensor first, Tensor first_scale, std::optional<Tensor> first_bias,
                     std::optional<Tensor> up, std::optional<Tensor> up_scale, std::optional<Tensor> up_bias,
                     bool rectify_up, Tensor down, Tensor down_scale, std::optional<Tensor> down_bias, Tensor counts,
                     int64_t bits, int64_t group, int64_t activation, double parameter0, double parameter1, bool every,
                     int64_t isa) {
  LAZY_CHECK(activation >= 0 && activation <= 7, "An activation is a number from 0 to 7, got ", activation, ".");
  QuantisedProblem p = quantised_problem(x, bits, group);
  const ScalarType type = x.scalar_type();
  LAZY_CHECK(first.dim() == 2, "Quantised rows are a matrix, one row a neuron.");
  p.d_hidden = first.size(0);
  p.first = read_rows(p, type, p.d_hidden, first, first_scale, first_bias);
  p.gated = up.has_value();
  LAZY_CHECK(p.gated == up_scale.has_value(), "The rows of up come with their scales.");
  if (p.gated) p.up = read_rows(p, type, p.d_hidden, *up, *up_scale, up_bias);
  read_down(p, type, down, down_scale, down_bias);
  int64_t* total = write<int64_t>("counts", counts, ScalarType::Long, {4});
  const QuantisedLevel level = quantised_level(isa);
  const Tensor input = contiguous("The input", x);
  Tensor y = quantised_output(x, p.d_out);
  p.rectify_up = rectify_up;
  p.every = every;
  p.activation = static_cast<Activation>(activation);
  p.parameter0 = static_cast<float>(parameter0);
  p.parameter1 = static_cast<float>(parameter1);
  p.x = input.const_data_ptr();
  p.y = y.mutable_data_ptr();
  int64_t counted[2] = {0, 0};
  p.counts = counted;
  if (p.tokens > 0 && p.d_out > 0) level.mlp(p, static_cast<int>(useful_quantised_threads(p)), run_on_pool);
  count(total, {counted[0], counted[1], p.tokens, 1});
  return y;
}

// The hidden activations are given, as to `down` alone.
Tensor quantised_down(Tensor x, Tensor down, Tensor scale, std::optional<Tensor> bias, int64_t bits, int64_t group,
                      int64_t isa) {
  check_group(bits, group);
  QuantisedProblem p = {};
  LAZY_CHECK(x.dim() >= 1, "The input of a linear layer has at least one axis, got a single number.");
  p.d_hidden = x.size(x.dim() - 1);
  p.d_in = p.padded_in = 1;
  LAZY_CHECK(p.d_hidden >= 1, "The input of down has no features.");
  p.tokens = x.numel() / p.d_hidden;
  p.bits = static_cast<int>(bits);
  p.group = bits == 8 ? 1 : group;
  p.dtype = dtype_of(x);
  read_down(p, x.scalar_type(), down, scale, bias);
  const QuantisedLevel level = quantised_level(isa);
  const Tensor input = contiguous("The input", x);
  Tensor y = quantised_output(x, p.d_out);
  p.x = input.const_data_ptr();
  p.y = y.mutable_data_ptr();
  const double work = static_cast<double>(x.numel()) * static_cast<double>(p.d_out);
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), 1 + static_cast<int64_t>(std::min(work / 65536, 1e6)));
  if (p.tokens > 0 && p.d_out > 0) level.mlp(p, static_cast<int>(threads), run_on_pool);
  return y;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("quantised_linear(Tensor x, Tensor rows, Tensor scale, Tensor? bias, int bits, int group, int isa=-1) -> Tensor");
  m.def("quantised_down(Tensor x, Tensor rows, Tensor scale, Tensor? bias, int bits, int group, int isa=-1) -> Tensor");
  m.def(
      "quantised_mlp(Tensor x, Tensor first, Tensor first_scale, Tensor? first_bias, Tensor? up, Tensor? up_scale, "
      "Tensor? up_bias, bool rectify_up, Tensor down, Tensor down_scale, Tensor? down_bias, Tensor(a!) counts, int bits, "
      "int group, int activation, float parameter0, float parameter1, bool every, int isa=-1) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("quantised_linear", TORCH_BOX(&lazy::quantised_linear));
  m.impl("quantised_down", TORCH_BOX(&lazy::quantised_down));
  m.impl("quantised_mlp", TORCH_BOX(&lazy::quantised_mlp));
}
