// One token through the attention of a decoder layer, norms and residual sums included, as torch sees it; included by
// bindings.cpp after the operators that it is made of, whose kernels give every number here.
#pragma once
#include "decoding_bindings.h"
#include "quantised_bindings.h"
#include "rotary.h"

namespace lazy {

#define LAZY_DECLARE_ROTARY(isa)                                         \
  namespace isa {                                                        \
  void rotate(const RotaryProblem&);                                     \
  void add(Dtype, int64_t, const void*, const void*, void*);             \
  }
LAZY_DECLARE_ROTARY(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_ROTARY(avx2)
LAZY_DECLARE_ROTARY(avx512)
LAZY_DECLARE_ROTARY(avx512_vnni)
#endif

namespace {

struct RotaryLevel {
  RotaryKernel rotate;
  AddKernel add;
};

RotaryLevel rotary_level(int64_t isa) {
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return {avx512_vnni::rotate, avx512_vnni::add};
    case 2: return {avx512::rotate, avx512::add};
    case 1: return {avx2::rotate, avx2::add};
    default: break;
  }
#endif
  return {portable::rotate, portable::add};
}

using Tensors = std::vector<Tensor>;

// Queries, keys and values as they come out of their projections: (width) for each sequence, so many elements apart.
struct Projected {
  char* at;
  int64_t width, stride;
};

class AttentionStep {
 public:
  AttentionStep(const Tensor& x, int64_t head, int64_t bits, int64_t group, int64_t isa)
      : type_(x.scalar_type()),
        dtype_(dtype_of(x)),
        size_(static_cast<int64_t>(x.element_size())),
        batch_(x.size(0)),
        width_(x.size(2)),
        head_(head),
        bits_(bits),
        group_(group),
        decoding_(decoding_level(isa)),
        quantised_(quantised_level(isa)),
        rotary_(rotary_level(isa)) {}

  void read_norms(const Tensors& norms, const Tensors& heads, double eps, double offset, bool rounds_first) {
    LAZY_CHECK(norms.size() == 2, "A decoder layer has a norm before its attention and one after it, got ", norms.size(),
               " weights.");
    LAZY_CHECK(heads.empty() || heads.size() == 2, "Norms of heads are one for queries and one for keys, got ",
               heads.size(), " weights.");
    for (int k = 0; k < 2; ++k) {
      norm_[k] = read("The weight of a norm", norms[k], type_, {width_});
      head_norm_[k] = heads.empty() ? nullptr : read("The weight of a norm", heads[k], type_, {head_});
    }
    rule_.dtype = dtype_;
    rule_.eps = static_cast<float>(eps);
    rule_.offset = static_cast<float>(offset);
    rule_.rounds_first = rounds_first;
  }

  // Four layers: queries, keys, values, and the projection of what was attended to.
  void read_layers(const Tensors& rows, const Tensors& scales, const Tensors& biases, const std::optional<Tensor>& bias) {
    LAZY_CHECK(rows.size() == 4 && scales.size() == 4, "An attention has four layers with rows and scales each, got ",
               rows.size(), " and ", scales.size(), ".");
    LAZY_CHECK(biases.empty() || biases.size() == 3, "Biases are those of queries, keys and values, got ", biases.size(), ".");
    QuantisedProblem p = quantised_problem(batch_, width_, dtype_, bits_, group_);
    for (int k = 0; k < 3; ++k) {
      LAZY_CHECK(rows[k].dim() == 2, "Quantised rows are a matrix, one row an output.");
      outputs_[k] = rows[k].size(0);
      LAZY_CHECK(outputs_[k] >= head_ && outputs_[k] % head_ == 0, "A layer of an attention has ", outputs_[k],
                 " outputs, which are no heads of ", head_, ".");
      first_[k] = read_rows(p, type_, outputs_[k], rows[k], scales[k],
                            biases.empty() ? std::nullopt : std::optional<Tensor>(biases[k]));
    }
    LAZY_CHECK(outputs_[1] == outputs_[2] && outputs_[0] % outputs_[1] == 0, "Queries, keys and values have ", outputs_[0],
               ", ", outputs_[1], " and ", outputs_[2], " outputs; keys and values have as many, queries a multiple.");
    p = quantised_problem(batch_, outputs_[0], dtype_, bits_, group_);
    last_ = read_rows(p, type_, width_, rows[3], scales[3], bias);
  }

  void read_angles(const Tensor& cos, const Tensor& sin) {
    LAZY_CHECK(cos.dim() == 3 && (cos.size(0) == 1 || cos.size(0) == batch_), "Angles are (1 or ", batch_, ", 1, ", head_,
               "), got ", written(cos.sizes()), ".");
    angle_stride_ = cos.size(0) == 1 ? 0 : head_;
    cos_ = read("The cosines", cos, type_, {cos.size(0), 1, head_});
    sin_ = read("The sines", sin, type_, {cos.size(0), 1, head_});
  }

  void read_cache(const Tensor& keys, const Tensor& values, int64_t at) {
    const int64_t shared = outputs_[1] / head_;
    LAZY_CHECK(keys.dim() == 4, "Keys have four axes: batch, heads, tokens, width; got ", written(keys.sizes()), ".");
    room_ = keys.size(2);
    LAZY_CHECK(at >= 0 && at < room_, "There is memory for ", room_, " keys, and this is to be number ", at, ".");
    keys_ = write<char>("The keys", keys, type_, {batch_, shared, room_, head_});
    values_ = write<char>("The values", values, type_, {batch_, shared, room_, head_});
    check_apart("Keys and values", keys, values);
    at_ = at;
  }

  void run(const void* x, double scale, void* sum, void* normed) {
    const int64_t inner = outputs_[0], all = inner + 2 * outputs_[1];
    thread_local std::vector<char> memory;
    memory.resize(static_cast<size_t>((2 * batch_ * (width_ + inner) + batch_ * all) * size_ + 5 * 64));
    next_ = memory.data();
    char *entering = take(width_), *queries = take(inner), *attended = take(inner), *leaving = take(width_);
    Projected parts[3];
    norm(batch_, width_, x, norm_[0], entering);
    project(entering, take(all), parts);
    for (int k = 0; k < 2; ++k)
      for (int64_t b = 0; head_norm_[k] && b < batch_; ++b) {
        char* heads = parts[k].at + b * parts[k].stride * size_;
        norm(parts[k].width / head_, head_, heads, head_norm_[k], heads);
      }
    rotate(parts[0], queries, inner, head_);
    rotate(parts[1], keys_ + at_ * head_ * size_, outputs_[1] / head_ * room_ * head_, room_ * head_);
    keep_values(parts[2]);
    attend(queries, scale, attended);
    linear(quantised_problem(batch_, inner, dtype_, bits_, group_), last_, width_, attended, leaving);
    rotary_.add(dtype_, batch_ * width_, x, leaving, sum);
    norm(batch_, width_, sum, norm_[1], normed);
  }

 private:
  char* take(int64_t width) {
    char* at = next_;
    next_ += (batch_ * width * size_ + 63) / 64 * 64;
    return at;
  }

  void norm(int64_t rows, int64_t width, const void* x, const void* weight, void* y) const {
    NormProblem p = rule_;
    p.rows = rows;
    p.width = width;
    p.x = x;
    p.weight = weight;
    p.y = y;
    decoding_.norm(p);
  }

  void linear(QuantisedProblem p, const QuantisedRows& rows, int64_t outputs, const void* x, void* y) const {
    p.d_hidden = outputs;
    p.first = rows;
    p.x = x;
    p.y = y;
    quantised_.linear(p, static_cast<int>(useful_quantised_threads(p)), run_on_pool);
  }

  // One product where the three layers lie one behind the other, else three.
  void project(const void* x, char* out, Projected* parts) const {
    const QuantisedProblem p = quantised_problem(batch_, width_, dtype_, bits_, group_);
    const bool together = follows(0) && follows(1);
    const int64_t all = outputs_[0] + 2 * outputs_[1];
    if (together) linear(p, first_[0], all, x, out);
    for (int k = 0; k < 3; ++k) {
      parts[k] = {out, outputs_[k], together ? all : outputs_[k]};
      if (!together) linear(p, first_[k], outputs_[k], x, out);
      out += (together ? 1 : batch_) * outputs_[k] * size_;
    }
  }

  // Do rows, scales and biases of the next layer begin where those of this one end?
  bool follows(int k) const {
    const int64_t n = outputs_[k];
    const auto behind = [](const void* a, int64_t bytes, const void* b) { return static_cast<const char*>(a) + bytes == b; };
    const QuantisedRows &one = first_[k], &next = first_[k + 1];
    return one.stride == next.stride && one.scale_stride == next.scale_stride &&
           behind(one.bytes, n * one.stride, next.bytes) &&
           behind(one.scale, n * one.scale_stride * (bits_ == 8 ? 4 : 2), next.scale) &&
           (one.bias == nullptr || behind(one.bias, n * size_, next.bias));
  }

  void rotate(const Projected& part, char* y, int64_t y_stride, int64_t y_head) const {
    RotaryProblem p = {};
    p.batch = batch_;
    p.heads = part.width / head_;
    p.width = head_;
    p.dtype = dtype_;
    p.x = part.at;
    p.x_stride = part.stride;
    p.cos = cos_;
    p.sin = sin_;
    p.angle_stride = angle_stride_;
    p.y = y;
    p.y_stride = y_stride;
    p.y_head = y_head;
    rotary_.rotate(p);
  }

  void keep_values(const Projected& part) const {
    const int64_t shared = part.width / head_, bytes = head_ * size_;
    for (int64_t b = 0; b < batch_; ++b)
      for (int64_t h = 0; h < shared; ++h)
        std::memcpy(values_ + ((b * shared + h) * room_ + at_) * bytes, part.at + b * part.stride * size_ + h * bytes,
                    static_cast<size_t>(bytes));
  }

  void attend(const char* queries, double scale, char* y) const {
    AttentionProblem p = {};
    p.batch = batch_;
    p.heads = outputs_[0] / head_;
    p.groups = outputs_[0] / outputs_[1];
    p.keys = at_ + 1;
    p.room = room_;
    p.width = head_;
    p.dtype = dtype_;
    p.scale = static_cast<float>(scale);
    p.q = queries;
    p.k = keys_;
    p.v = values_;
    p.y = y;
    decoding_.attention(p, useful_attention_threads(p), run_on_pool);
  }

  ScalarType type_;
  Dtype dtype_;
  int64_t size_, batch_, width_, head_, bits_, group_;
  DecodingLevel decoding_;
  QuantisedLevel quantised_;
  RotaryLevel rotary_;
  NormProblem rule_ = {};
  const void *norm_[2], *head_norm_[2];
  int64_t outputs_[3];
  QuantisedRows first_[3], last_;
  const void *cos_, *sin_;
  int64_t angle_stride_;
  char *keys_, *values_;
  int64_t room_, at_;
  char* next_;
};

std::tuple<Tensor, Tensor> attention_step(Tensor x, Tensors norms, double eps, double offset, bool rounds_first,
                                          Tensors rows, Tensors scales, Tensors biases, std::optional<Tensor> out_bias,
                                          int64_t bits, int64_t group, Tensors head_norms, Tensor cos, Tensor sin,
                                          Tensor keys, Tensor values, int64_t at, double scale, int64_t isa) {
  LAZY_CHECK(x.dim() == 3 && x.size(1) == 1, "A step takes one token a sequence: (batch, 1, width), got ",
             written(x.sizes()), ".");
  LAZY_CHECK(cos.dim() == 3, "Angles have three axes: batch, tokens, width of a head; got ", written(cos.sizes()), ".");
  const int64_t head = cos.size(2);
  LAZY_CHECK(head >= 16 && head % 16 == 0, "The width of a head is a multiple of 16, got ", head, ".");
  check_isa(isa);
  AttentionStep step(x, head, bits, group, isa);
  step.read_norms(norms, head_norms, eps, offset, rounds_first);
  step.read_layers(rows, scales, biases, out_bias);
  step.read_angles(cos, sin);
  step.read_cache(keys, values, at);
  const Tensor input = contiguous("The input", x);
  Tensor sum = torch::stable::empty_like(input), normed = torch::stable::empty_like(input);
  if (x.size(0) > 0) step.run(input.const_data_ptr(), scale, sum.mutable_data_ptr(), normed.mutable_data_ptr());
  return {sum, normed};
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def(
      "attention_step(Tensor x, Tensor[] norms, float eps, float offset, bool rounds_first, Tensor[] rows, Tensor[] scales, "
      "Tensor[] biases, Tensor? out_bias, int bits, int group, Tensor[] head_norms, Tensor cos, Tensor sin, "
      "Tensor(a!) keys, Tensor(b!) values, int at, float scale, int isa=-1) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) { m.impl("attention_step", TORCH_BOX(&lazy::attention_step)); }
