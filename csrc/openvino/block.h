// A block's weights as one array of bytes: a header, then sections that begin at multiples of 64.
// Written by export/openvino/layout.py, which lists the sections in the same order.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>

#include "../problem.h"
#include "../quantised.h"

namespace lazy {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::runtime_error(sentence.str());
}

constexpr int64_t kFormat = 2;  // of these bytes: raised when what they mean changes

enum Section : int {
  sketch, certificate, first, first_scale, first_bias, up, up_scale, up_bias, down, down_scale, down_bias, norm_weight,
  norm_bias, sections
};

struct Header {
  char magic[8];
  int64_t bytes;       // of the whole array
  float parameter[2];  // of the activation
  float left, low, high;
  float epsilon;       // of the norm
  int64_t offset[sections];  // from the start of the array; 0: absent
};

constexpr char kMagic[8] = {'l', 'a', 'z', 'y', '-', 'm', 'l', 'p'};

// What the operator's attributes say of a block.
struct Shape {
  int64_t format = 0, d_in = 0, d_hidden = 0, d_out = 0, planes = 0;
  std::string weights, activation, checksum;
  bool gated = false, rectify_up = false;
  bool adds_input = false, normalises = false;  // of the output: with the input added, and its rows normalised

  bool quantised() const { return weights == "int8"; }
  bool panels() const { return quantised() && !gated; }  // the first layer's rows in panels, for products of 8 bits

  Dtype dtype() const {
    if (weights == "float32" || weights == "int8") return Dtype::f32;
    if (weights == "bfloat16") return Dtype::bf16;
    if (weights == "float16") return Dtype::f16;
    refuse("The weights of a sparse MLP block are float32, bfloat16, float16 or int8, got ", weights,
           "; export the model again.");
  }

  Activation function() const {
    constexpr const char* kNames[] = {"relu", "squared_relu", "jsrelu", "fatrelu",
                                      "thresholded_silu", "thresholded_gelu", "thresholded_gelu_tanh",
                                      "offset_gelu"};
    int k = 0;
    for (const char* name : kNames) {
      if (activation == name) return static_cast<Activation>(k);
      ++k;
    }
    refuse("This extension knows no activation called ", activation, "; export the model again.");
  }

  void check() const {
    if (format != kFormat)
      refuse("This model was exported in the format ", format, ", and this extension reads ", kFormat,
             "; export the model again, or load the extension that lies beside it.");
    if (d_in < 1 || d_in > 32768 || d_hidden < 1 || d_out < 1 || d_hidden > (int64_t{1} << 32) ||
        d_out > (int64_t{1} << 32))
      refuse("A sparse MLP block of ", d_in, " inputs, ", d_hidden, " neurons and ", d_out,
             " outputs is beyond the kernels, which take 1 to 32768 inputs; export the model again.");
    if (adds_input ? d_in != d_out : normalises)
      refuse("A sparse MLP block of ", d_in, " inputs and ", d_out, " outputs cannot add its input to its output; export "
             "the model again.");
    if (planes < 0 || planes > 2) refuse("planes is 0 (by the token count), 1 or 2, got ", planes, ".");
    dtype();
    function();
  }

  int64_t padded_in() const { return quantised() && gated ? (d_in + 63) / 64 * 64 : (d_in + 3) / 4 * 4; }
  int64_t padded_hidden() const { return (d_hidden + kPanel - 1) / kPanel * kPanel; }
};

// Bytes that a section has, and whether it has to be there.
struct Extent {
  int64_t bytes;
  bool needed;
};

inline Extent extent(const Shape& s, Section which) {
  const int64_t item = s.dtype() == Dtype::f32 ? 4 : 2;
  const bool q = s.quantised();
  const int64_t row = q ? s.padded_in() : s.d_in * item;
  if (s.panels() && (which == first_scale || which == first_bias)) return {s.padded_hidden() * 4, true};
  switch (which) {
    case sketch: return {s.padded_hidden() * s.padded_in(), !q || s.panels()};
    case certificate: return {6 * s.padded_hidden() * 4, !q};
    case first: return {s.d_hidden * row, !s.panels()};
    case first_scale: return {s.d_hidden * 4, q};
    case up: return {s.d_hidden * row, s.gated};
    case up_scale: return {s.d_hidden * 4, q && s.gated};
    case first_bias: case up_bias: return {s.d_hidden * item, false};
    case down: return {s.d_hidden * (s.panels() ? (s.d_out + 63) / 64 * 64 : s.d_out * (q ? 1 : item)), true};
    case down_scale: return {s.d_hidden * 4, q};
    case norm_weight: case norm_bias: return {s.d_out * 4, s.normalises};
    default: return {s.d_out * item, false};
  }
}

// Refuses bytes that are not those of a block of this shape.
inline Header read_header(const Shape& s, const uint8_t* data, int64_t size) {
  Header h;
  if (size < static_cast<int64_t>(sizeof(h)))
    refuse("The weights of a sparse MLP block have ", size, " bytes, less than their header; export the model again.");
  std::memcpy(&h, data, sizeof(h));
  if (std::memcmp(h.magic, kMagic, sizeof(kMagic)) != 0 || h.bytes != size)
    refuse("The bytes of a sparse MLP block are not what was exported; export the model again.");
  for (int k = 0; k < sections; ++k) {
    const Extent e = extent(s, static_cast<Section>(k));
    const int64_t at = h.offset[k];
    const bool fits = at == 0 ? !e.needed : at >= static_cast<int64_t>(sizeof(h)) && at % 64 == 0 && at <= size - e.bytes;
    if (!fits)
      refuse("Section ", k, " of a sparse MLP block does not fit its ", s.d_in, " inputs, ", s.d_hidden,
             " neurons and ", s.d_out, " outputs; export the model again.");
  }
  return h;
}

// Every word times an odd number of its own: a change within one word is always seen, others but for one in 2^64.
inline std::string checksum_of(const uint8_t* data, int64_t size) {
  uint64_t sum = 0;
  for (int64_t k = 0; k + 8 <= size; k += 8) {
    uint64_t word;
    std::memcpy(&word, data + k, 8);
    sum += word * (static_cast<uint64_t>(k) / 4 + 1);
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(sum));
  return text;
}

inline void check_bytes(const Shape& s, const uint8_t* data, int64_t size) {
  read_header(s, data, size);
  if (checksum_of(data, size) != s.checksum)
    refuse("The weights of a sparse MLP block are not those that were exported: bytes of them have changed; export the "
           "model again.");
}

class Block {
 public:
  Block(const Shape& s, const uint8_t* data, int64_t size) : s_(s), data_(data), h_(read_header(s, data, size)) {}

  // Kept rows with their certificate, or int8 rows in panels.
  Problem problem(int64_t tokens, int planes) const {
    Problem p = {};
    p.tokens = tokens;
    p.d_in = s_.d_in;
    p.d_hidden = s_.d_hidden;
    p.d_out = s_.d_out;
    p.padded_in = s_.padded_in();
    p.dtype = s_.dtype();
    p.gated = s_.gated;
    p.rectify_up = s_.rectify_up;
    p.planes = planes;
    p.activation = s_.function();
    p.parameter0 = h_.parameter[0];
    p.parameter1 = h_.parameter[1];
    p.left = h_.left;
    p.low = h_.low;
    p.high = h_.high;
    p.sketch = at(sketch);
    const int64_t n = s_.padded_hidden();
    const auto floats = [&](Section which) { return reinterpret_cast<const float*>(at(which)); };
    if (const float* c = floats(certificate)) p.certificate = {c, c + n, c + 2 * n, c + 3 * n, c + 4 * n, c + 5 * n};
    else p.certificate = {floats(first_scale), floats(first_bias), nullptr, nullptr, nullptr, nullptr};
    p.first_rows = at(first);
    p.up_rows = at(up);
    p.up_bias = at(up_bias);
    p.down_rows = at(down);
    p.down_bias = at(down_bias);
    return p;
  }

  const float* scales_of_down() const { return reinterpret_cast<const float*>(at(down_scale)); }

  // What is left to do with a row; x and out are those of the graph.
  Finish finish(const void* x, void* out, Dtype dtype) const {
    const auto floats = [&](Section which) { return reinterpret_cast<const float*>(at(which)); };
    return {x, out, dtype, s_.normalises ? floats(norm_weight) : nullptr, floats(norm_bias), h_.epsilon};
  }

  QuantisedProblem quantised(int64_t tokens) const {
    QuantisedProblem p = {};
    p.tokens = tokens;
    p.d_in = s_.d_in;
    p.d_hidden = s_.d_hidden;
    p.d_out = s_.d_out;
    p.padded_in = s_.padded_in();
    p.bits = 8;
    p.group = 1;
    p.dtype = s_.dtype();
    p.gated = s_.gated;
    p.rectify_up = s_.rectify_up;
    p.activation = s_.function();
    p.parameter0 = h_.parameter[0];
    p.parameter1 = h_.parameter[1];
    p.first = {at(first), s_.padded_in(), at(first_scale), 1, at(first_bias)};
    p.up = {at(up), s_.padded_in(), at(up_scale), 1, at(up_bias)};
    p.down = at(down);
    p.down_scale = at(down_scale);
    p.down_stride = s_.d_out;
    p.down_scale_stride = 1;
    p.down_bias = at(down_bias);
    return p;
  }

 private:
  const uint8_t* at(Section which) const { return h_.offset[which] ? data_ + h_.offset[which] : nullptr; }

  const Shape& s_;
  const uint8_t* data_;
  Header h_;
};

}  // namespace lazy
