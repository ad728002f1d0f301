// The one data structure that crosses from the operator (compiled once) to the kernels (compiled once per ISA).
#pragma once
#include <cstddef>
#include <cstdint>

namespace lazy {

constexpr int kPanel = 64;      // neurons in one sketch panel, and in one unit of work
constexpr int kMaxTile = 64;    // tokens that one unit of work handles together
constexpr int kAccumulators = 8192;  // floats of the output tile kept in the first-level cache

enum class Dtype : int { f32 = 0, bf16 = 1, f16 = 2, i8 = 3 };

enum class Activation : int {
  relu = 0, squared_relu = 1, jsrelu = 2, fatrelu = 3,
  thresholded_silu = 4, thresholded_gelu = 5, thresholded_gelu_tanh = 6, offset_gelu = 7,
};

// Per-neuron numbers of the certificate, each an array of padded_hidden floats.
struct Certificate {
  const float* scale;      // c_i: weight = c_i * (byte - 128) + error
  const float* bias;       // b_i
  const float* slack;      // multiplies ||x||: sketch error, rounding of the sketch dot and of the dense dot
  const float* quantised;  // multiplies ||x - quantised x||: c_i ||q_i||
  const float* absolute;   // rounding that does not scale with x
  const float* limit;      // of ||x||, up to which no sum of the neuron can overflow, its `up` included
};

// What follows a block in a graph, done by whoever computed a row: out = norm(y + x), or y + x.
struct Finish {
  const void* x;           // (tokens, d_out)
  void* out;               // (tokens, d_out), may be the block's y where their dtypes are one
  Dtype dtype;             // of x and out
  const float* weight;     // (d_out) of the norm; null: only x is added
  const float* bias;       // (d_out)
  float epsilon;
};

struct Problem {
  int64_t tokens, d_in, d_hidden, d_out;
  int64_t padded_in;       // d_in rounded up to 4
  Dtype dtype;             // of x, y, biases and weight rows
  bool gated;
  bool rectify_up;         // of a gated block: s(gate) * relu(up)
  bool rounds_twice;       // as torch does here: w . x is rounded to the model's dtype before the bias is added
  int planes;              // int8 planes of x: 1 or 2
  Activation activation;
  float parameter0, parameter1;
  float left, low, high;   // zero set: (-inf, left] and [low, high]

  const void* x;           // (tokens, d_in)
  const uint8_t* sketch;   // (padded_hidden / 64, padded_in / 4, 64, 4)
  Certificate certificate;
  const void* first_rows; // (d_hidden, d_in): up, or gate of a gated block
  const void* up_rows;     // (d_hidden, d_in) of a gated block
  const void* up_bias;     // (d_hidden) of a gated block, may be null
  const void* down_rows;   // (d_hidden, d_out)
  const void* down_bias;   // (d_out), may be null
  void* y;                 // (tokens, d_out)
  const Finish* finish;    // null: y is all that is wanted
  int64_t* counts;         // [0] pairs computed exactly, [1] pairs that fired
};

// Runs body(worker) once or more, on up to `workers` threads; a worker may also run after the others.
using Parallel = void (*)(int64_t workers, void (*body)(void* context), void* context);

using Kernel = void (*)(const Problem&, int threads, Parallel);

}  // namespace lazy
