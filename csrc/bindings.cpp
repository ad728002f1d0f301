// The operator as torch sees it: checks, run-time choice of the ISA build, torch's own thread pool.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "elementwise.h"
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

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// 0 portable, 1 avx2, 2 avx512, 3 avx512_vnni
int64_t best_isa() {
#ifndef LAZY_PORTABLE_ONLY
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  return vnni ? 3 : avx512 ? 2 : avx2 ? 1 : 0;
#else
  return 0;
#endif
}

struct Level {
  Kernel sparse_mlp;
  ElementKernel jsrelu;
};

Level level_for(int64_t isa) {
  static const int64_t best = best_isa();
  STD_TORCH_CHECK(isa <= best, "The kernel level asked for (", isa, ") is above what this processor runs (", best,
                  "); ask for a lower one, or -1 for the best.");
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best : isa) {
    case 3: return {avx512_vnni::kernel, avx512_vnni::jsrelu};
    case 2: return {avx512::kernel, avx512::jsrelu};
    case 1: return {avx2::kernel, avx2::jsrelu};
    default: break;
  }
#endif
  return {portable::kernel, portable::jsrelu};
}

Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::BFloat16: return Dtype::bf16;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::Char: return Dtype::i8;
    default: break;
  }
  STD_TORCH_CHECK(false, "The native kernels take float32, bfloat16 and float16; convert the tensor to one of them.");
  return Dtype::f32;
}

void check_rows(const char* what, const Tensor& t, int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == columns && t.is_contiguous(), what,
                  " must be a contiguous tensor of shape (", rows, ", ", columns, ").");
}

const void* pointer(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }

void run_on_pool(int64_t workers, void (*body)(void*), void* context) {
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) { body(context); });
}

// counts accumulates: pairs (token, neuron) computed exactly, pairs that fired, tokens, calls.
Tensor sparse_mlp(Tensor x, Tensor sketch, Tensor certificate, Tensor switch_rows,
                  std::optional<Tensor> up_rows, std::optional<Tensor> up_bias, bool rectify_up, Tensor down_rows,
                  std::optional<Tensor> down_scale, std::optional<Tensor> down_bias, Tensor counts,
                  int64_t activation, double parameter0, double parameter1, double left, double low, double high,
                  int64_t planes, int64_t isa) {
  Problem p = {};
  const auto sizes = x.sizes();
  STD_TORCH_CHECK(sizes.size() >= 1, "The input of an MLP block has at least one axis.");
  p.d_in = sizes[sizes.size() - 1];
  p.tokens = 1;
  for (size_t i = 0; i + 1 < sizes.size(); ++i) p.tokens *= sizes[i];
  p.d_hidden = down_rows.size(0);
  p.d_out = down_rows.size(1);
  p.padded_in = (p.d_in + 3) / 4 * 4;
  p.dtype = dtype_of(x);
  p.rows_i8 = dtype_of(down_rows) == Dtype::i8;
  p.gated = up_rows.has_value();
  p.rectify_up = rectify_up;
  p.planes = static_cast<int>(planes);
  const int64_t padded_hidden = (p.d_hidden + kPanel - 1) / kPanel * kPanel;
  STD_TORCH_CHECK(planes == 1 || planes == 2, "planes is 1 or 2, got ", planes, ".");
  STD_TORCH_CHECK(p.padded_in <= 32768, "The kernel takes inputs of at most 32768 features, got ", p.d_in, ".");
  STD_TORCH_CHECK(activation >= 0 && activation <= 6, "Unknown activation number ", activation, ".");
  STD_TORCH_CHECK(sketch.numel() == padded_hidden * p.padded_in && sketch.is_contiguous(),
                  "The sketch does not fit this block; build it again with pack().");
  check_rows("certificate", certificate, 6, padded_hidden);
  STD_TORCH_CHECK(dtype_of(certificate) == Dtype::f32, "The certificate must be float32.");
  if (!p.rows_i8) {
    check_rows("The rows of the first layer", switch_rows, p.d_hidden, p.d_in);
    STD_TORCH_CHECK(dtype_of(switch_rows) == p.dtype && dtype_of(down_rows) == p.dtype,
                    "Input and weights must have the same dtype.");
  } else {
    STD_TORCH_CHECK(down_scale && down_scale->numel() == p.d_hidden && !p.gated, "int8 rows need their scales.");
  }
  STD_TORCH_CHECK(counts.scalar_type() == ScalarType::Long && counts.numel() == 4 && counts.is_contiguous(),
                  "counts must be four int64 numbers.");
  check_rows("The rows of the last layer", down_rows, p.d_hidden, p.d_out);
  if (p.gated) {
    check_rows("The rows of up", *up_rows, p.d_hidden, p.d_in);
    STD_TORCH_CHECK(dtype_of(*up_rows) == p.dtype, "Input and weights must have the same dtype.");
  }
  STD_TORCH_CHECK(!up_bias || (up_bias->numel() == p.d_hidden && dtype_of(*up_bias) == p.dtype), "Bad bias of up.");
  STD_TORCH_CHECK(!down_bias || (down_bias->numel() == p.d_out && dtype_of(*down_bias) == p.dtype),
                  "Bad bias of down.");

  const Tensor input = x.is_contiguous() ? x : torch::stable::contiguous(x);
  // torch adds the bias in a second operation there, to what is rounded already
  p.rounds_twice = sizes.size() >= 3 && !x.is_contiguous();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.back() = p.d_out;
  Tensor y = torch::stable::empty(shape, x.scalar_type());
  p.activation = static_cast<Activation>(activation);
  p.parameter0 = static_cast<float>(parameter0);
  p.parameter1 = static_cast<float>(parameter1);
  p.left = static_cast<float>(left);
  p.low = static_cast<float>(low);
  p.high = static_cast<float>(high);
  p.x = input.const_data_ptr();
  p.sketch = static_cast<const uint8_t*>(sketch.const_data_ptr());
  const float* c = static_cast<const float*>(certificate.const_data_ptr());
  p.certificate = {c, c + padded_hidden, c + 2 * padded_hidden, c + 3 * padded_hidden, c + 4 * padded_hidden,
                   c + 5 * padded_hidden};
  p.switch_rows = switch_rows.const_data_ptr();
  p.up_rows = pointer(up_rows);
  p.up_bias = pointer(up_bias);
  p.down_rows = down_rows.const_data_ptr();
  p.down_scale = static_cast<const float*>(pointer(down_scale));
  p.down_bias = pointer(down_bias);
  p.y = y.mutable_data_ptr();
  int64_t counted[2] = {0, 0};
  p.counts = counted;
  if (p.tokens > 0 && p.d_out > 0) {
    // a thread is worth waking for about 64 KiB of sketch
    const int64_t useful = 1 + p.tokens * padded_hidden * p.padded_in / 65536;
    const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), useful);
    level_for(isa).sparse_mlp(p, static_cast<int>(threads), run_on_pool);
  }
  int64_t* total = static_cast<int64_t*>(counts.mutable_data_ptr());
  total[0] += counted[0];
  total[1] += counted[1];
  total[2] += p.tokens;
  total[3] += 1;
  return y;
}

constexpr int64_t kGrain = 32768;  // elements that are worth a thread, as in torch's own element-wise operators

Tensor elementwise(const Tensor& x, const Tensor* gradient, double mix, double cap, int64_t isa) {
  Tensor out = torch::stable::empty_like(x);
  const Elements e = {dtype_of(x), x.const_data_ptr(), gradient ? gradient->const_data_ptr() : nullptr,
                      out.mutable_data_ptr(), static_cast<float>(mix), static_cast<float>(cap)};
  STD_TORCH_CHECK(e.dtype != Dtype::i8, "JSReLU takes float32, bfloat16 and float16.");
  const ElementKernel run = level_for(isa).jsrelu;
  torch::stable::parallel_for(0, x.numel(), kGrain, [&](int64_t begin, int64_t end) { run(e, begin, end); });
  return out;
}

Tensor jsrelu(Tensor x, double mix, double cap, int64_t isa) {
  return elementwise(x.is_contiguous() ? x : torch::stable::contiguous(x), nullptr, mix, cap, isa);
}

Tensor jsrelu_backward(Tensor gradient, Tensor x, double mix, double cap, int64_t isa) {
  STD_TORCH_CHECK(gradient.scalar_type() == x.scalar_type() && gradient.sizes().equals(x.sizes()),
                  "JSReLU's input and gradient must have the same shape and dtype.");
  const Tensor g = gradient.is_contiguous() ? gradient : torch::stable::contiguous(gradient);
  return elementwise(x.is_contiguous() ? x : torch::stable::contiguous(x), &g, mix, cap, isa);
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY(lazyneuron, m) {
  m.def(
      "sparse_mlp(Tensor x, Tensor sketch, Tensor certificate, Tensor switch_rows, Tensor? up_rows, Tensor? up_bias, "
      "bool rectify_up, Tensor down_rows, Tensor? down_scale, Tensor? down_bias, Tensor(a!) counts, int activation, "
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
