// Norms and attention as torch sees them; included by bindings.cpp, which has headers and the choice of the ISA.
#pragma once
#include "checks.h"
#include "decoding.h"

namespace lazy {

#define LAZY_DECLARE_DECODING(isa)                                  \
  namespace isa {                                                   \
  void rms_norm(const NormProblem&);                                \
  void attention(const AttentionProblem&, int threads, Parallel);   \
  }
LAZY_DECLARE_DECODING(portable)
#ifndef LAZY_PORTABLE_ONLY
LAZY_DECLARE_DECODING(avx2)
LAZY_DECLARE_DECODING(avx512)
LAZY_DECLARE_DECODING(avx512_vnni)
#endif

namespace {

struct DecodingLevel {
  NormKernel norm;
  AttentionKernel attention;
};

DecodingLevel decoding_level(int64_t isa) {
  check_isa(isa);
#ifndef LAZY_PORTABLE_ONLY
  switch (isa < 0 ? best_isa() : isa) {
    case 3: return {avx512_vnni::rms_norm, avx512_vnni::attention};
    case 2: return {avx512::rms_norm, avx512::attention};
    case 1: return {avx2::rms_norm, avx2::attention};
    default: break;
  }
#endif
  return {portable::rms_norm, portable::attention};
}

int useful_attention_threads(const AttentionProblem& p) {
  const double work = static_cast<double>(p.batch * p.heads) * static_cast<double>(p.keys * p.width);
  const int64_t most = 1 + static_cast<int64_t>(std::min(work / 131072, 1e6));
  const int64_t units = std::max<int64_t>(p.batch * (p.heads / p.groups), 1);
  return static_cast<int>(std::min<int64_t>({torch::stable::get_num_threads(), most, units}));
}

Tensor rms_norm(Tensor x, Tensor weight, double eps, double offset, bool rounds_first, int64_t isa) {
  LAZY_CHECK(x.dim() >= 1, "The input of a norm has at least one axis, got a single number.");
  NormProblem p = {};
  p.width = x.size(x.dim() - 1);
  LAZY_CHECK(p.width >= 1, "The input of a norm has no features.");
  p.rows = x.numel() / p.width;
  p.dtype = dtype_of(x);
  p.eps = static_cast<float>(eps);
  p.offset = static_cast<float>(offset);
  p.rounds_first = rounds_first;
  const DecodingLevel level = decoding_level(isa);
  const Tensor input = contiguous("The input", x);
  Tensor y = torch::stable::empty_like(input);
  p.weight = read("The weight of a norm", weight, x.scalar_type(), {p.width});
  p.x = input.const_data_ptr();
  p.y = y.mutable_data_ptr();
  if (p.rows > 0) level.norm(p);
  return y;
}

Tensor single_query_attention(Tensor q, Tensor k, Tensor v, double scale, int64_t isa) {
  LAZY_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "Queries, keys and values have four axes: batch, heads, tokens, "
             "width.");
  AttentionProblem p = {};
  p.batch = q.size(0);
  p.heads = q.size(1);
  p.keys = p.room = k.size(2);
  p.width = q.size(3);
  const int64_t shared = k.size(1);
  LAZY_CHECK(q.size(2) == 1, "Single queries are attended to, got ", q.size(2), " a sequence.");
  LAZY_CHECK(p.width >= 16 && p.width % 16 == 0, "The width of a head is a multiple of 16, got ", p.width, ".");
  LAZY_CHECK(p.keys >= 1, "A query attends to at least one key, and there are no keys.");
  LAZY_CHECK(shared >= 1 && p.heads >= 1 && p.heads % shared == 0, "Query heads (", p.heads, ") are a multiple of those of keys (", shared,
             ").");
  p.groups = p.heads / shared;
  p.dtype = dtype_of(q);
  p.scale = static_cast<float>(scale);
  const DecodingLevel level = decoding_level(isa);
  const Tensor query = contiguous("Queries", q), key = contiguous("Keys", k), value = contiguous("Values", v);
  const ScalarType type = q.scalar_type();
  p.q = query.const_data_ptr();
  p.k = read("The keys", key, type, {p.batch, shared, p.keys, p.width});
  p.v = read("The values", value, type, {p.batch, shared, p.keys, p.width});
  Tensor y = torch::stable::empty({p.batch, 1, p.heads, p.width}, type);
  p.y = y.mutable_data_ptr();
  if (p.batch > 0) level.attention(p, useful_attention_threads(p), run_on_pool);
  return y;
}

}  // namespace
}  // namespace lazy

STABLE_TORCH_LIBRARY_FRAGMENT(lazyneuron, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps, float offset, bool rounds_first, int isa=-1) -> Tensor");
  m.def("single_query_attention(Tensor q, Tensor k, Tensor v, float scale, int isa=-1) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lazyneuron, CPU, m) {
  m.impl("rms_norm", TORCH_BOX(&lazy::rms_norm));
  m.impl("single_query_attention", TORCH_BOX(&lazy::single_query_attention));
}
