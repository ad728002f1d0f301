// The operator as torch sees it: checks, run-time choice of the ISA build, torch's own thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "checks.h"
#include "elementwise.h"
#include "isa.h"
#include "problem.h"

namespace lazy {

#define LAZY_DECLARE(isa)                              \
  namespace isa {                                      \
  void kernel(const Problem&, int threads, Parallel);  \
  void jsrelu(const Elements&, int64_t, int64_t);      \
  }
LAZY_DECLARE(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE(avx2)
LAZY_DECLARE(avx512)
LAZY_DECLARE(avx512_vnni)
#endif

namespace {

struct Level {
  Kernel sparse_mlp;
  ElementKernel jsrelu;
};

int64_t best_isa() {
  static const int64_t best = find_best_isa();
  return best;
}

void check_isa(int64_t isa) {
  const int64_t best = best_isa();
  LAZY_CHECK(isa >= -1 && isa <= best, "The kernel level asked for (", isa, ") is none, or above what this processor runs (",
             best, "); ask for one from 0 to that, or -1 for the best.");
}

Level level_for(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return {avx512_vnni::kernel, avx512_vnni::jsrelu};
    case 2: return {avx512::kernel, avx512::jsrelu};
    case 1: return {avx2::kernel, avx2::jsrelu};
    default: break;
  }
#endif
  return {portable::kernel, portable::jsrelu};
}

// Of the model: what tokens, biases and kept rows are stored in.
Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::BFloat16: return Dtype::bf16;
    case ScalarType::Half: return Dtype::f16;
    default: break;
  }
  refuse("The native kernels take float32, bfloat16 and float16, got ", name_of(t.scalar_type()),
         "; convert the tensor to one of them.");
}

void run_on_pool(int64_t workers, void (*body)(void*), void* context) {
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) { body(context); });
}

Tensor contiguous(const char* what, const Tensor& t) {
  check_memory(what, t, t.const_data_ptr());  // torch's own copy reads without a look
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// The tensors of a block, as the operator gets them.
struct Weights {
  const Tensor &sketch, &certificate, &first_rows, &down_rows;
  const std::optional<Tensor> &up_rows, &up_bias, &down_bias;
};

int64_t padded_hidden(const Problem& p) { return (p.d_hidden + kPanel - 1) / kPanel * kPanel; }

void read_shapes(const Tensor& x, const Weights& w, Problem& p) {
  LAZY_CHECK(x.dim() >= 1, "The input of an MLP block has at least one axis, got a single number.");
  LAZY_CHECK(w.first_rows.dim() == 2 && w.down_rows.dim() == 2, "The rows of a layer are a matrix, one row a neuron.");
  p.d_in = x.size(x.dim() - 1);
  LAZY_CHECK(p.d_in >= 1 && p.d_in <= 32768, "The kernel takes inputs of 1 to 32768 features, got ", p.d_in, ".");
  LAZY_CHECK(w.first_rows.size(1) == p.d_in, "The input has ", p.d_in, " features, and the block's first layer takes ",
             w.first_rows.size(1), "; pass rows of that width.");
  p.tokens = x.numel() / p.d_in;
  p.padded_in = (p.d_in + 3) / 4 * 4;
  p.d_hidden = w.down_rows.size(0);
  p.d_out = w.down_rows.size(1);
  p.dtype = dtype_of(x);
  p.gated = w.up_rows.has_value();
}

// Checks each tensor and takes its pointer.
void read_weights(ScalarType type, const Weights& w, Problem& p) {
  constexpr ScalarType kFloat = ScalarType::Float;
  p.first_rows = read("The rows of the first layer", w.first_rows, type, {p.d_hidden, p.d_in});
  const int64_t padded = padded_hidden(p);  // no overflow from here on: as many rows lie in memory
  p.sketch = read<uint8_t>("The sketch", w.sketch, ScalarType::Byte, {padded / kPanel, p.padded_in / 4, kPanel, 4});
  const float* c = read<float>("The certificate", w.certificate, kFloat, {6, padded});
  p.certificate = {c, c + padded, c + 2 * padded, c + 3 * padded, c + 4 * padded, c + 5 * padded};
  p.down_rows = read("The rows of the last layer", w.down_rows, type, {p.d_hidden, p.d_out});
  p.up_rows = read("The rows of up", w.up_rows, type, {p.d_hidden, p.d_in});
  p.up_bias = read("The bias of up", w.up_bias, type, {p.d_hidden});
  p.down_bias = read("The bias of down", w.down_bias, type, {p.d_out});
}

// A thread is worth waking for about 64 KiB of sketch.
int64_t useful_threads(const Problem& p) {
  const double bytes = static_cast<double>(p.tokens) * static_cast<double>(padded_hidden(p) * p.padded_in);
  return 1 + static_cast<int64_t>(std::min(bytes / 65536, 1e6));
}

// counts accumulates: pairs (token, neuron) computed exactly, pairs that fired, tokens, calls; by several threads.
void count(int64_t* total, const int64_t (&added)[4]) {
  for (int k = 0; k < 4; ++k) __atomic_fetch_add(total + k, added[k], __ATOMIC_RELAXED);
}

Tensor sparse_mlp(Tensor x, Tensor sketch, Tensor certificate, Tensor first_rows,
                  std::optional<Tensor> up_rows, std::optional<Tensor> up_bias, bool rectify_up, Tensor down_rows,
                  std::optional<Tensor> down_bias, Tensor counts, int64_t activation, double parameter0,
                  double parameter1, double left, double low, double high, int64_t planes, int64_t isa) {
  LAZY_CHECK(planes == 1 || planes == 2, "planes is 1 or 2, got ", planes, ".");
  LAZY_CHECK(activation >= 0 && activation <= 7, "An activation is a number from 0 to 7, got ", activation, ".");
  Problem p = {};
  const Weights weights = {sketch, certificate, first_rows, down_rows, up_rows, up_bias, down_bias};
  read_shapes(x, weights, p);
  read_weights(x.scalar_type(), weights, p);
  int64_t* total = write<int64_t>("counts", counts, ScalarType::Long, {4});
  const Level level = level_for(isa);

  const Tensor input = contiguous("The input", x);
  // torch adds the bias in a second operation there, to what is rounded already
  p.rounds_twice = x.dim() != 2 && !x.is_contiguous();
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = p.d_out;
  Tensor y = torch::stable::empty(shape, x.scalar_type());
  p.rectify_up = rectify_up;
  p.planes = static_cast<int>(planes);
  p.activation = static_cast<Activation>(activation);
  p.parameter0 = static_cast<float>(parameter0);
  p.parameter1 = static_cast<float>(parameter1);
  p.left = static_cast<float>(left);
  p.low = static_cast<float>(low);
  p.high = static_cast<float>(high);
  p.x = input.const_data_ptr();
  p.y = y.mutable_data_ptr();
  int64_t counted[2] = {0, 0};
  p.counts = counted;
  if (p.tokens > 0 && p.d_out > 0) {
    const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), useful_threads(p));
    level.sparse_mlp(p, static_cast<int>(threads), run_on_pool);
  }
  count(total, {counted[0], counted[1], p.tokens, 1});
  return y;
}

constexpr int64_t kGrain = 32768;  // elements that are worth a thread, as in torch's own element-wise operators

Tensor elementwise(const Tensor& x, const Tensor* gradient, double mix, double cap, int64_t isa) {
  const Dtype dtype = dtype_of(x);
  const ElementKernel run = level_for(isa).jsrelu;
  Tensor out = torch::stable::empty_like(x);
  const Elements e = {dtype, x.const_data_ptr(), gradient ? gradient->const_data_ptr() : nullptr,
                      out.mutable_data_ptr(), static_cast<float>(mix), static_cast<float>(cap)};
  torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) { run(e, begin, end); });
  return out;
}

Tensor jsrelu(Tensor x, double mix, double cap, int64_t isa) {
  return elementwise(contiguous("JSReLU's input", x), nullptr, mix, cap, isa);
}

Tensor jsrelu_backward(Tensor gradient, Tensor x, double mix, double cap, int64_t isa) {
  LAZY_CHECK(gradient.scalar_type() == x.scalar_type() && gradient.sizes().equals(x.sizes()),
             "JSReLU's input and gradient must have the same shape and dtype, got ", name_of(x.scalar_type()), " of shape ",
             written(x.sizes()), " and ", name_of(gradient.scalar_type()), " of shape ", written(gradient.sizes()), ".");
  const Tensor g = contiguous("JSReLU's gradient", gradient);
  return elementwise(contiguous("JSReLU's input", x), &g, mix, cap, isa);
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY(lazyneuron, m) {
  m.def(
      "sparse_mlp(Tensor x, Tensor sketch, Tensor certificate, Tensor first_rows, Tensor? up_rows, Tensor? up_bias, "
      "bool rectify_up, Tensor down_rows, Tensor? down_bias, Tensor(a!) counts, int activation, "
      "float parameter0, float parameter1, float left, float low, float high, int planes, int isa) -> Tensor");
  m.def("jsrelu(Tensor x, float mix, float cap, int isa=-1) -> Tensor");
  m.def("jsrelu_backward(Tensor gradient, Tensor x, float mix, float cap, int isa=-1) -> Tensor");
  m.def("best_isa() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("sparse_mlp", TORCH_BOX(&lazy::sparse_mlp));
  m.impl("jsrelu", TORCH_BOX(&lazy::jsrelu));
  m.impl("jsrelu_backward", TORCH_BOX(&lazy::jsrelu_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CompositeExplicitAutograd, m) { m.impl("best_isa", TORCH_BOX(&lazy::best_isa)); }

#include "buckets_bindings.h"
#include "candidates_bindings.h"
#include "decoding_bindings.h"
#include "fingerprint_bindings.h"
#include "quantised_bindings.h"
#include "quantise_bindings.h"
#include "attention_step_bindings.h"
#include "decoder_layers_bindings.h"
#include "packing_bindings.h"
#include "fired_bindings.h"
#include "watch_bindings.h"
