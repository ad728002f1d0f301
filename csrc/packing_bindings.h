// Packing of what fires as torch sees it; included by bindings.cpp, which has headers and the choice of the ISA.
#pragma once
#include "checks.h"
#include "packing.h"

namespace lazy {

#define LAZY_DECLARE_PACKING(isa) \
  namespace isa { PackingKernels packing_kernels(); }
LAZY_DECLARE_PACKING(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_PACKING(avx2)
LAZY_DECLARE_PACKING(avx512)
LAZY_DECLARE_PACKING(avx512_vnni)
#endif

namespace {

PackingKernels packing_level(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return avx512_vnni::packing_kernels();
    case 2: return avx512::packing_kernels();
    case 1: return avx2::packing_kernels();
    default: break;
  }
#endif
  return portable::packing_kernels();
}

constexpr int64_t kPackingGrain = 32768;  // numbers that are worth a thread

Packing packing_of(const char* what, const Tensor& dense, ScalarType type) {
  Packing p = {};
  p.dtype = dtype_of(dense);
  p.dense = read(what, dense, type, {kAny, kAny});
  p.rows = dense.size(0);
  p.width = dense.size(1);
  p.bytes = (p.width + 7) / 8;
  return p;
}

template <class F>
void over_packed_rows(const Packing& p, const F& f) {
  const int64_t grain = std::max<int64_t>(1, kPackingGrain / std::max<int64_t>(1, p.width));
  if (p.rows > 0 && p.width > 0) torch::stable::parallel_for(0, p.rows, grain, f);
}

// Where each row's values begin; refuses bits behind the end of a row, which are nobody's.
std::vector<int64_t> starts_of(Packing& p, const Tensor& bits) {
  p.bits = read<uint8_t>("The bits of what fires", bits, ScalarType::Byte, {p.rows, p.bytes});
  std::vector<int64_t> starts(static_cast<size_t>(p.width > 0 ? p.rows : 0) + 1, 0);
  for (size_t r = 0; r + 1 < starts.size(); ++r) {
    const uint8_t* row = p.bits + static_cast<int64_t>(r) * p.bytes;
    int64_t n = 0, b = 0;
    for (uint64_t word; b + 8 <= p.bytes; b += 8) {
      std::memcpy(&word, row + b, 8);
      n += __builtin_popcountll(word);
    }
    for (; b < p.bytes; ++b) n += __builtin_popcount(row[b]);
    starts[r + 1] = starts[r] + n;
    LAZY_CHECK(p.width % 8 == 0 || row[p.bytes - 1] >> (p.width % 8) == 0,
               "The bits of what fires go on behind the last of ", p.width, " neurons; mark them anew.");
  }
  return starts;
}

char* element(const void* first, int64_t index, int64_t size) {
  return static_cast<char*>(const_cast<void*>(first)) + index * size;
}

Tensor mark_fired(Tensor z, std::optional<Tensor> factor, double left, double low, double high, int64_t isa) {
  const ScalarType type = z.scalar_type();
  Packing p = packing_of("What is marked", z, type);
  p.factor = read("The factor", factor, type, {p.rows, p.width});
  p.left = static_cast<float>(left);
  p.low = static_cast<float>(low);
  p.high = static_cast<float>(high);
  const PackingKernels run = packing_level(isa);
  Tensor bits = torch::stable::empty({p.rows, p.bytes}, ScalarType::Byte);
  uint8_t* out = static_cast<uint8_t*>(bits.mutable_data_ptr());
  over_packed_rows(p, [&](int64_t begin, int64_t end) { run.mark(p, begin, end, out); });
  return bits;
}

Tensor gather_fired(Tensor dense, Tensor bits, int64_t isa) {
  const ScalarType type = dense.scalar_type();
  Packing p = packing_of("What is gathered from", dense, type);
  const std::vector<int64_t> starts = starts_of(p, bits);
  const PackingKernels run = packing_level(isa);
  Tensor values = torch::stable::empty({starts.back()}, type);
  const int64_t size = static_cast<int64_t>(dense.element_size());
  over_packed_rows(p, [&](int64_t begin, int64_t end) {
    run.gather(p, begin, end, element(values.mutable_data_ptr(), starts[static_cast<size_t>(begin)], size));
  });
  return values;
}

Tensor scatter_fired(Tensor bits, Tensor values, int64_t width, int64_t isa) {
  LAZY_CHECK(bits.dim() == 2, "The bits of what fires are a matrix, one row a token, got ", bits.dim(), " axes.");
  LAZY_CHECK(width >= 0 && width <= (int64_t{1} << 40), "The width is a number of neurons from 0 to 2^40, got ", width,
             ".");
  Packing p = {};
  p.dtype = dtype_of(values);
  p.rows = bits.size(0);
  p.width = width;
  p.bytes = (width + 7) / 8;
  const std::vector<int64_t> starts = starts_of(p, bits);
  const void* kept = read("The values of what fires", values, values.scalar_type(), {starts.back()});
  const PackingKernels run = packing_level(isa);
  product("The activation", product("The activation", p.rows, width), 8);
  Tensor dense = torch::stable::empty({p.rows, width}, values.scalar_type());
  const int64_t size = static_cast<int64_t>(values.element_size());
  over_packed_rows(p, [&](int64_t begin, int64_t end) {
    run.scatter(p, begin, end, element(kept, starts[static_cast<size_t>(begin)], size), dense.mutable_data_ptr());
  });
  return dense;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("mark_fired(Tensor z, Tensor? factor, float left, float low, float high, int isa=-1) -> Tensor");
  m.def("gather_fired(Tensor dense, Tensor bits, int isa=-1) -> Tensor");
  m.def("scatter_fired(Tensor bits, Tensor values, int width, int isa=-1) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("mark_fired", TORCH_BOX(&lazy::mark_fired));
  m.impl("gather_fired", TORCH_BOX(&lazy::gather_fired));
  m.impl("scatter_fired", TORCH_BOX(&lazy::scatter_fired));
}
