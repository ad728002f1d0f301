// One token through decoder layers that follow each other, as torch sees it: the operators of each layer in a row, without
// a way back to Python between them. Included by bindings.cpp after the operators that it is made of.
#pragma once
#include "attention_step_bindings.h"

namespace lazy {
namespace {

// Takes what belongs to a layer from lists in which all layers follow each other.
class LayerReader {
 public:
  LayerReader(const Tensors& weights, const std::vector<int64_t>& forms, const std::vector<double>& numbers)
      : weights_(weights), forms_(forms), numbers_(numbers) {}

  // Numbers of a layer in `forms`, and in `numbers`.
  static constexpr size_t kForms = 6, kNumbers = 8;

  Tensor tensor() {
    LAZY_CHECK(at_ < weights_.size(), "The layers have more weights than the ", weights_.size(), " that are given.");
    return weights_[at_++];
  }

  Tensors tensors(int64_t n) {
    Tensors out;
    out.reserve(static_cast<size_t>(n));
    for (int64_t k = 0; k < n; ++k) out.push_back(tensor());
    return out;
  }

  std::optional<Tensor> tensor_if(bool there) { return there ? std::optional<Tensor>(tensor()) : std::nullopt; }
  int64_t form() { return forms_[form_++]; }
  double number() { return numbers_[number_++]; }
  bool all_read() const { return at_ == weights_.size(); }

 private:
  const Tensors& weights_;
  const std::vector<int64_t>& forms_;
  const std::vector<double>& numbers_;
  size_t at_ = 0, form_ = 0, number_ = 0;
};

// What a layer has, as bits of its first form.
enum LayerHas : int64_t {
  kHeadNorms = 1, kBiases = 2, kOutBias = 4, kRoundsFirst = 8, kFirstBias = 16, kGated = 32, kUpBias = 64,
  kRectifyUp = 128, kDownBias = 256, kEvery = 512, kKept = 1024,
};

struct Token {
  const Tensor &cos, &sin;
  int64_t at, isa;
};

// An MLP block on quantised weights, or on the model's own.
Tensor block_of(const Tensor& x, int64_t has, const Tensor& counts, LayerReader& read, int64_t isa) {
  const int64_t bits = read.form(), group = read.form(), activation = read.form();
  const double first = read.number(), second = read.number(), left = read.number(), low = read.number(),
               high = read.number();
  const bool gated = has & kGated, rectify_up = has & kRectifyUp;
  if (has & kKept) {
    Tensors sketch = read.tensors(2);
    const Tensor rows = read.tensor();
    const std::optional<Tensor> up = read.tensor_if(gated), up_bias = read.tensor_if(has & kUpBias);
    const Tensor down = read.tensor();
    return sparse_mlp(x, sketch[0], sketch[1], rows, up, up_bias, rectify_up, down, read.tensor_if(has & kDownBias), counts,
                      activation, first, second, left, low, high, bits, isa);
  }
  Tensors gate = read.tensors(2);
  const std::optional<Tensor> gate_bias = read.tensor_if(has & kFirstBias);
  const std::optional<Tensor> up = read.tensor_if(gated), up_scale = read.tensor_if(gated),
                              up_bias = read.tensor_if(has & kUpBias);
  Tensors down = read.tensors(2);
  return quantised_mlp(x, gate[0], gate[1], gate_bias, up, up_scale, up_bias, rectify_up, down[0], down[1],
                       read.tensor_if(has & kDownBias), counts, bits, group, activation, first, second, has & kEvery, isa);
}

Tensor decoder_layer(const Tensor& x, const Token& token, const Tensor& keys, const Tensor& values, const Tensor& counts,
                     LayerReader& read) {
  const int64_t has = read.form(), bits = read.form(), group = read.form();
  const double eps = read.number(), offset = read.number(), scale = read.number();
  Tensors norms = read.tensors(2), head_norms = read.tensors(has & kHeadNorms ? 2 : 0), rows = read.tensors(4),
          scales = read.tensors(4), biases = read.tensors(has & kBiases ? 3 : 0);
  const std::optional<Tensor> out_bias = read.tensor_if(has & kOutBias);
  auto [sum, normed] = attention_step(x, norms, eps, offset, has & kRoundsFirst, rows, scales, biases, out_bias, bits, group,
                                      head_norms, token.cos, token.sin, keys, values, token.at, scale, token.isa);
  const Tensor rest = block_of(normed, has, counts, read, token.isa);
  LAZY_CHECK(rest.numel() == sum.numel(), "The MLP block of a decoder layer gives ", rest.numel(), " numbers for ",
             sum.numel(), ".");
  Tensor y = torch::stable::empty_like(sum);
  rotary_level(token.isa).add(dtype_of(sum), sum.numel(), sum.const_data_ptr(), rest.const_data_ptr(), y.mutable_data_ptr());
  return y;
}

Tensors decoder_layers(Tensor x, Tensor cos, Tensor sin, Tensors weights, Tensors keys, Tensors values, Tensors counts,
                       std::vector<int64_t> forms, std::vector<double> numbers, int64_t at, int64_t isa) {
  const size_t layers = keys.size();
  LAZY_CHECK(values.size() == layers && counts.size() == layers && forms.size() == layers * LayerReader::kForms &&
                 numbers.size() == layers * LayerReader::kNumbers,
             "Lists of ", layers, " layers do not fit each other.");
  check_isa(isa);
  LayerReader read(weights, forms, numbers);
  const Token token = {cos, sin, at, isa};
  Tensors out;
  out.reserve(layers);
  for (size_t k = 0; k < layers; ++k)
    out.push_back(decoder_layer(k == 0 ? x : out.back(), token, keys[k], values[k], counts[k], read));
  LAZY_CHECK(read.all_read(), "The layers have fewer weights than are given.");
  return out;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def(
      "decoder_layers(Tensor x, Tensor cos, Tensor sin, Tensor[] weights, Tensor(a!)[] keys, Tensor(b!)[] values, "
      "Tensor(c!)[] counts, int[] forms, float[] numbers, int at, int isa=-1) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) { m.impl("decoder_layers", TORCH_BOX(&lazy::decoder_layers)); }
