// What crosses from the search for the largest products (compiled once) to its kernels (compiled once for each ISA level).
#pragma once
#include "problem.h"

namespace lazy {

// Which rows of a matrix may be among the k that give a token its largest products.
struct CandidateProblem {
  Problem rows;     // tokens, d_in, d_hidden (the rows), padded_in, dtype, planes, x, sketch and certificate count
  int64_t k;        // at least 1
  uint8_t* wanted;  // (d_hidden): becomes 1 for every candidate of some token
};

using CandidateKernel = void (*)(const CandidateProblem&, int threads, Parallel);

}  // namespace lazy
