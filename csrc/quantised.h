// What crosses from the quantised operators (compiled once) to their kernels (compiled once for each ISA level).
#pragma once
#include "problem.h"

namespace lazy {

// Rows along which the input runs. int8: q + 128 a byte, in order, padded to 64; one float32 scale a row.
// int4: q + 8 a nibble in the order of `blocks`, padded to 128; sixteen bfloat16 scales a block. A row's scales may stand
// behind its weights, so that both are one piece of memory.
struct QuantisedRows {
  const uint8_t* bytes = nullptr;  // (rows, row_bytes)
  int64_t stride = 0;              // bytes from row to row
  const void* scale = nullptr;     // int8: (rows); int4: (rows, blocks, 16)
  int64_t scale_stride = 0;        // numbers from row to row
  const void* bias = nullptr;      // (rows) of the model's dtype, or null
};

constexpr int kMostBlocks = 32768 / 512 + 3;

// A row of int4 weights in blocks of 64 * steps: lane l holds weights l * 4 * steps on, four a step. A scale group lies in
// one lane or in several whole ones, so that one product and one scale serve sixteen lanes. Steps halve at the row's end.
struct Blocks {
  int count = 0;
  int steps[kMostBlocks];

  Blocks() = default;
  Blocks(int64_t padded, int64_t group) {
    int64_t step = group / 4;
    while (padded > 0 && count < kMostBlocks) {
      while (64 * step > padded) step /= 2;
      steps[count++] = static_cast<int>(step);
      padded -= 64 * step;
    }
  }
};

struct QuantisedProblem {
  int64_t tokens, d_in, d_hidden, d_out;
  int64_t padded_in;      // 64 or 128 divide it
  int bits;               // 8 or 4
  int64_t group;          // int4: weights that share a scale
  Dtype dtype;            // of x, y and biases
  bool gated, rectify_up;
  bool every;             // every neuron's rows are read, whatever fires
  Activation activation;
  float parameter0, parameter1;
  Blocks blocks;
  const void* x;          // (tokens, d_in)
  QuantisedRows first;    // up, or gate of a gated block; the weights of a linear layer; none: x is what enters `down`
  QuantisedRows up;       // of a gated block
  const void* down;       // by neuron. int8: (d_hidden, d_out), q; int4: (d_hidden, d_out / 2), weights k and k + 16 of
                          // 32 share a byte, q + 8 each
  const void* down_scale; // int8: float32 (d_hidden); int4: bfloat16 (d_hidden, d_out / group)
  int64_t down_stride, down_scale_stride;
  const void* down_bias;  // (d_out), may be null
  void* y;                // (tokens, d_out); of a linear layer (tokens, d_hidden)
  int64_t* counts;        // [0] pairs computed, [1] pairs that fired
};

using QuantisedKernel = void (*)(const QuantisedProblem&, int threads, Parallel);

}  // namespace lazy
