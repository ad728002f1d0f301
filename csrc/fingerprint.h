// What crosses to the fingerprint's kernels: the bytes of one row.
#pragma once
#include <cstdint>

namespace lazy {

// Any change of one 32-bit word of the row changes the result.
using RowPrint = uint64_t (*)(const uint8_t* row, int64_t bytes);

}  // namespace lazy
