// A token that quantised rows are multiplied with.
#pragma once
#include "token.h"

namespace lazy {
namespace LAZY_ISA {

// A token as the products read it.
struct GridToken {
  const int8_t* planes;   // 2 x padded_in, high first; in the order of the blocks when rows are int4. LAZY_WORDS: words when they
                          // are int8
  const int32_t* base;    // int4: (blocks, 16), 8 times the sums of x that a lane covers
  const float* wide;      // (d_in)
  float step;             // x ~ step * (256 * high + low)
  int32_t sum[2];         // of the planes
  bool odd;               // no grid holds x, or there are no planes here: `wide` is what counts
};

}  // namespace LAZY_ISA
}  // namespace lazy
