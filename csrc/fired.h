// What crosses to the products with a hidden activation of which only what fires is there, as bits and values.
#pragma once
#include "problem.h"

namespace lazy {

// Bits as in packing.h; the values of token t begin at starts[t]. All numbers are float32.
struct FiredProblem {
  int64_t tokens, neurons, width, bytes;  // width: features of a token and of a neuron's row
  const uint8_t* bits;
  const int64_t* starts;
  const float* values;  // of fired_rows and fired_columns
  const float* dense;   // (tokens, width) of fired_columns and fired_dots
  const float* rows;    // (neurons, width) of fired_rows and fired_dots
  float* out;
};

constexpr int64_t kFiredTokens = 256;   // that are worked on together: half of their features stay in the second-level cache
constexpr int64_t kFiredNeurons = 256;  // the same for neurons

struct FiredKernels {
  void (*rows)(const FiredProblem&, int64_t begin, int64_t end);     // over tokens
  void (*columns)(const FiredProblem&, int64_t begin, int64_t end);  // over panels of neurons
  void (*dots)(const FiredProblem&, int64_t begin, int64_t end);     // over panels of neurons
};

}  // namespace lazy
