// The fingerprint of weights as torch sees it; included by bindings.cpp, which has the headers and the choice of the ISA.
#pragma once
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

// Rows of bytes: those of a matrix, or a vector's pieces of 4096, of which the last may be shorter.
struct Bytes {
  const uint8_t* data;
  int64_t rows, width, stride, last;

  uint64_t print(int64_t r) const { return row_print()(data + r * stride, r + 1 < rows ? width : last); }
};

Bytes bytes_of(const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Byte && (t.dim() == 1 || t.dim() == 2),
                  "A fingerprint is taken of uint8 vectors and matrices.");
  const int64_t inner = t.dim() - 1, size = t.size(inner);
  STD_TORCH_CHECK(size < 2 || t.stride(inner) == 1, "A fingerprint is taken of rows that are contiguous.");
  const uint8_t* data = static_cast<const uint8_t*>(t.const_data_ptr());
  if (inner == 1) return {data, t.size(0), size, t.stride(0), size};
  const int64_t rows = (size + kPrintPiece - 1) / kPrintPiece;
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

// Looks at part `turn` of `turns` equal parts of every tensor, at one row of each at least; -1 when all is as wanted.
int64_t first_change(std::vector<Tensor> memory, Tensor wanted, int64_t turn, int64_t turns) {
  STD_TORCH_CHECK(turns >= 1 && turn >= 0 && turn < turns && turns <= (int64_t{1} << 31), "turn is one of turns, got ",
                  turn, " of ", turns, ".");
  STD_TORCH_CHECK(wanted.scalar_type() == ScalarType::Long && wanted.dim() == 1 && wanted.is_contiguous(),
                  "The fingerprint to compare with is a contiguous int64 vector.");
  const int64_t* at = static_cast<const int64_t*>(wanted.const_data_ptr());
  int64_t left = wanted.size(0), number = 0;
  for (const Tensor& t : memory) {
    const Bytes b = bytes_of(t);
    STD_TORCH_CHECK(b.rows <= left, "The fingerprint to compare with is of fewer rows.");
    if (turns == 1) {
      std::atomic<bool> changed{false};
      torch::stable::parallel_for(0, b.rows, grain_of(b), [&](int64_t begin, int64_t end) {
        if (differs(b, at, begin, end)) changed.store(true, std::memory_order_relaxed);
      });
      if (changed.load()) return number;
    } else if (b.rows > 0) {
      const int64_t begin = b.rows * turn / turns, end = std::max(begin + 1, b.rows * (turn + 1) / turns);
      if (differs(b, at, begin, end)) return number;
    }
    at += b.rows;
    left -= b.rows;
    ++number;
  }
  return -1;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("fingerprint(Tensor[] memory) -> Tensor");
  m.def("first_change(Tensor[] memory, Tensor wanted, int turn, int turns) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("fingerprint", TORCH_BOX(&lazy::fingerprint));
  m.impl("first_change", TORCH_BOX(&lazy::first_change));
}
