// The fingerprint of weights as torch sees it; included by bindings.cpp, which has headers and the choice of the ISA.
#pragma once
#include "checks.h"
#include "fingerprint.h"

namespace lazy {

#define LAZY_DECLARE_PRINT(isa)                  \
  namespace isa {                                \
  uint64_t row_print(const uint8_t*, int64_t);   \
  }
LAZY_DECLARE_PRINT(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_PRINT(avx2)
LAZY_DECLARE_PRINT(avx512)
LAZY_DECLARE_PRINT(avx512_vnni)
#endif

namespace {

int64_t best_isa();

RowPrint row_print() {
  static const RowPrint best = [] {
#ifndef LAZY_PORTABLE_ONLY
    switch (best_isa()) {
      case 3: return avx512_vnni::row_print;
      case 2: return avx512::row_print;
      case 1: return avx2::row_print;
      default: break;
    }
#endif
    return portable::row_print;
  }();
  return best;
}

constexpr int64_t kPrintPiece = 4096;
constexpr int64_t kMostPrints = int64_t{1} << 31;  // rows of one tensor, and turns: their product fits

// Rows of bytes: those of a matrix, or a vector's pieces of 4096, of which the last may be shorter.
struct Bytes {
  const uint8_t* data;
  int64_t rows, width, stride, last;

  uint64_t print(int64_t r) const { return row_print()(data + r * stride, r + 1 < rows ? width : last); }
};

Bytes bytes_of(const Tensor& t) {
  LAZY_CHECK(t.scalar_type() == ScalarType::Byte && (t.dim() == 1 || t.dim() == 2),
             "A fingerprint is taken of uint8 vectors and matrices, got ", name_of(t.scalar_type()), " of shape ",
             written(t.sizes()), "; view the memory as uint8.");
  const int64_t inner = t.dim() - 1, size = t.size(inner);
  LAZY_CHECK(size < 2 || t.stride(inner) == 1, "A fingerprint is taken of rows whose bytes lie side by side, got ",
             t.stride(inner), " apart; pass a contiguous tensor.");
  const uint8_t* data = static_cast<const uint8_t*>(t.const_data_ptr());
  check_memory("The memory of a fingerprint", t, data);
  const int64_t rows = inner == 1 ? t.size(0) : size / kPrintPiece + (size % kPrintPiece != 0);
  LAZY_CHECK(rows <= kMostPrints, "A fingerprint is taken of at most ", kMostPrints, " rows a tensor, got ", rows,
             "; pass less at once.");
  if (inner == 1) return {data, rows, size, t.stride(0), size};
  return {data, rows, kPrintPiece, kPrintPiece, size - (rows - 1) * kPrintPiece};
}

constexpr int64_t kPrintGrain = 1 << 18;  // bytes that are worth a thread

int64_t grain_of(const Bytes& b) { return std::max<int64_t>(1, kPrintGrain / std::max<int64_t>(b.width, 1)); }

Tensor fingerprint(std::vector<Tensor> memory) {
  int64_t rows = 0;
  for (const Tensor& t : memory) rows += bytes_of(t).rows;
  Tensor out = torch::stable::empty({rows}, ScalarType::Long);
  int64_t* to = static_cast<int64_t*>(out.mutable_data_ptr());
  for (const Tensor& t : memory) {
    const Bytes b = bytes_of(t);
    torch::stable::parallel_for(0, b.rows, grain_of(b), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) to[r] = static_cast<int64_t>(b.print(r));
    });
    to += b.rows;
  }
  return out;
}

bool differs(const Bytes& b, const int64_t* wanted, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    if (static_cast<int64_t>(b.print(r)) != wanted[r]) return true;
  return false;
}

// Looks at `parts` of `turns` equal parts of every tensor from part `turn` on, at one row of each at least; -1 when all
// is as wanted.
int64_t first_change(std::vector<Tensor> memory, Tensor wanted, int64_t turn, int64_t turns, int64_t parts) {
  LAZY_CHECK(turns >= 1 && turn >= 0 && turn < turns && turns <= kMostPrints,
             "turn is from 0 to turns - 1, and turns from 1 to ", kMostPrints, ", got ", turn, " of ", turns, ".");
  LAZY_CHECK(parts >= 1 && parts <= turns - turn, "parts is from 1 to turns - turn, got ", parts, " from ", turn,
             " of ", turns, ".");
  const int64_t* at = read<int64_t>("The fingerprint to compare with", wanted, ScalarType::Long, {kAny});
  int64_t rows = 0, number = 0;
  std::vector<Bytes> all;
  all.reserve(memory.size());
  for (const Tensor& t : memory) {
    all.push_back(bytes_of(t));
    rows += all.back().rows;
  }
  LAZY_CHECK(wanted.size(0) == rows, "The fingerprint to compare with is of ", wanted.size(0),
             " pieces, the memory of ", rows, "; take it of the same tensors.");
  for (const Bytes& b : all) {
    if (turns == 1) {
      std::atomic<bool> changed{false};
      torch::stable::parallel_for(0, b.rows, grain_of(b), [&](int64_t begin, int64_t end) {
        if (differs(b, at, begin, end)) changed.store(true, std::memory_order_relaxed);
      });
      if (changed.load()) return number;
    } else if (b.rows > 0) {
      const int64_t begin = b.rows * turn / turns, end = std::max(begin + 1, b.rows * (turn + parts) / turns);
      if (differs(b, at, begin, end)) return number;
    }
    at += b.rows;
    ++number;
  }
  return -1;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("fingerprint(Tensor[] memory) -> Tensor");
  m.def("first_change(Tensor[] memory, Tensor wanted, int turn, int turns, int parts) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("fingerprint", TORCH_BOX(&lazy::fingerprint));
  m.impl("first_change", TORCH_BOX(&lazy::first_change));
}
