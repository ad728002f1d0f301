// The search for the largest products as torch sees it; included by bindings.cpp, which has headers and the choice of the
// ISA.
#pragma once
#include "candidates.h"
#include "checks.h"

namespace lazy {

#define LAZY_DECLARE_CANDIDATES(isa) \
  namespace isa { void candidates(const CandidateProblem&, int threads, Parallel); }
LAZY_DECLARE_CANDIDATES(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_CANDIDATES(avx2)
LAZY_DECLARE_CANDIDATES(avx512)
LAZY_DECLARE_CANDIDATES(avx512_vnni)
#endif

namespace {

CandidateKernel candidate_kernel(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return avx512_vnni::candidates;
    case 2: return avx512::candidates;
    case 1: return avx2::candidates;
    default: break;
  }
#endif
  return portable::candidates;
}

Tensor candidates(Tensor x, Tensor sketch, Tensor certificate, int64_t rows, int64_t k, int64_t isa) {
  LAZY_CHECK(x.dim() >= 1, "The input of a linear layer has at least one axis, got a single number.");
  LAZY_CHECK(rows >= 1 && rows <= (int64_t{1} << 40), "A matrix has from 1 to 2^40 rows, got ", rows, ".");
  LAZY_CHECK(k >= 1 && k <= rows, "The largest ", k, " of ", rows, " products were asked for; ask for one at least, and "
             "for no more than there are.");
  CandidateProblem p = {};
  p.rows.d_in = x.size(x.dim() - 1);
  LAZY_CHECK(p.rows.d_in >= 1 && p.rows.d_in <= 32768, "The kernel takes inputs of 1 to 32768 features, got ",
             p.rows.d_in, ".");
  p.rows.tokens = x.numel() / p.rows.d_in;
  p.rows.padded_in = (p.rows.d_in + 3) / 4 * 4;
  p.rows.d_hidden = rows;
  p.rows.dtype = dtype_of(x);
  p.rows.planes = 2;
  p.k = k;
  const int64_t padded = padded_hidden(p.rows);
  p.rows.sketch = read<uint8_t>("The sketch", sketch, ScalarType::Byte,
                                {padded / kPanel, p.rows.padded_in / 4, kPanel, 4});
  const float* c = read<float>("The certificate", certificate, ScalarType::Float, {6, padded});
  p.rows.certificate = {c, c + padded, c + 2 * padded, c + 3 * padded, c + 4 * padded, c + 5 * padded};
  const CandidateKernel run = candidate_kernel(isa);
  const Tensor input = contiguous("The input", x);
  p.rows.x = input.const_data_ptr();
  Tensor wanted = torch::stable::empty({rows}, ScalarType::Byte);
  p.wanted = static_cast<uint8_t*>(wanted.mutable_data_ptr());
  std::memset(p.wanted, 0, static_cast<size_t>(rows));
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), useful_threads(p.rows));
  if (p.rows.tokens > 0) run(p, static_cast<int>(threads), run_on_pool);
  return wanted;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("candidates(Tensor x, Tensor sketch, Tensor certificate, int rows, int k, int isa=-1) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) { m.impl("candidates", TORCH_BOX(&lazy::candidates)); }
