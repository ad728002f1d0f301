// What stands around the layers of a language model while it decodes: RMS norms, and attention of single queries.
// Compiled once for each ISA level.
#include "decoding.h"

#include <limits>
#include <vector>

#include "simd.h"
#include "work.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

template <class T>
void norm_rows(const NormProblem& p) {
  thread_local std::vector<float> wide;
  wide.resize(static_cast<size_t>(p.width));
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t row = 0; row < p.rows; ++row) {
    const T* x = static_cast<const T*>(p.x) + row * p.width;
    T* y = static_cast<T*>(p.y) + row * p.width;
    v16f squares = {};
    int64_t k = 0;
    for (; k + 16 <= p.width; k += 16) {
      const v16f v = load16(x + k);
      store(wide.data() + k, v);
      squares += v * v;
    }
    float sum = reduce(squares);
    for (; k < p.width; ++k) {
      wide[k] = to_float(x[k]);
      sum += wide[k] * wide[k];
    }
    const float factor = 1.f / std::sqrt(sum / static_cast<float>(p.width) + p.eps);
    for (k = 0; k < p.width; ++k) {
      const float normed = wide[k] * factor, w = to_float(weight[k]) + p.offset;
      y[k] = narrow((p.rounds_first ? to_float(narrow(normed, T{})) : normed) * w, T{});
    }
  }
}

// exp of numbers that are not positive, to two units in the last place; what underflows is zero.
LAZY_INLINE v16f exp_of_negative(v16f x) {
  const v16f least = splat(-87.f);
  const v16f inside = select(x < least, least, x);
  const v16f whole = (inside * 1.44269504f + 12582912.f) - 12582912.f;
  const v16f r = (inside - whole * 0.693359375f) + whole * 2.12194440e-4f;
  v16f p = splat(1.f / 5040);
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const v16i bits = (convert<v16i>(whole) + 127) << 23;
  const v16f power = bits_as<v16f>(bits);
  return select(x < least, v16f{}, p * power);  // NaN is not less than anything, and stays in p
}

// Scores of all keys for one query; what is left of the last sixteen is minus infinity.
template <class T>
void scores_of(const float* query, const T* keys, int64_t n, int64_t width, float scale, float* out) {
  for (int64_t t = 0; t < n; ++t) {
    v16f sum = {};
    const T* key = keys + t * width;
    for (int64_t c = 0; c < width; c += 16) sum += load16(query + c) * load16(key + c);
    out[t] = reduce(sum) * scale;
  }
  for (int64_t t = n; t < up_to(n, 16); ++t) out[t] = -std::numeric_limits<float>::infinity();
}

// Scores to weights that are not divided by their sum yet; returns the sum.
float weigh(float* scores, int64_t padded) {
  v16f most = splat(-std::numeric_limits<float>::infinity()), sum = {};
  for (int64_t t = 0; t < padded; t += 16) {
    const v16f s = load16(scores + t);
    most = select(s > most, s, most);
  }
  float largest = most[0];
  for (int i = 1; i < 16; ++i) largest = most[i] > largest ? most[i] : largest;
  for (int64_t t = 0; t < padded; t += 16) {
    const v16f w = exp_of_negative(load16(scores + t) - largest);
    store(scores + t, w);
    sum += w;
  }
  return reduce(sum);
}

template <class T>
class Attention {
 public:
  explicit Attention(const AttentionProblem& p) : p_(p), padded_(up_to(p.keys, 16)) {}

  void work() {
    thread_local std::vector<float> scores, query, sums;
    scores.resize(static_cast<size_t>(p_.groups * padded_));
    query.resize(static_cast<size_t>(p_.width));
    sums.resize(static_cast<size_t>(p_.groups * p_.width));
    const int64_t shared = p_.heads / p_.groups;
    heads_.share(p_.batch * shared, [&](int64_t unit) { one(unit, scores.data(), query.data(), sums.data()); });
  }

 private:
  // Heads that share keys and values.
  void one(int64_t unit, float* scores, float* query, float* sums) const {
    const int64_t width = p_.width, groups = p_.groups;
    const T* q = static_cast<const T*>(p_.q) + unit * groups * width;
    const T* keys = static_cast<const T*>(p_.k) + unit * p_.room * width;
    const T* values = static_cast<const T*>(p_.v) + unit * p_.room * width;
    T* y = static_cast<T*>(p_.y) + unit * groups * width;
    thread_local std::vector<float> total;
    total.resize(static_cast<size_t>(groups));
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t c = 0; c < width; ++c) query[c] = to_float(q[g * width + c]);
      scores_of(query, keys, p_.keys, width, p_.scale, scores + g * padded_);
      total[g] = weigh(scores + g * padded_, padded_);
    }
    std::memset(sums, 0, static_cast<size_t>(groups * width) * sizeof(float));
    for (int64_t t = 0; t < p_.keys; ++t)
      for (int64_t c = 0; c < width; c += 16) {
        const v16f value = load16(values + t * width + c);
        for (int64_t g = 0; g < groups; ++g) {
          float* to = sums + g * width + c;
          const v16f sum = load16(to) + scores[g * padded_ + t] * value;
          store(to, sum);
        }
      }
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t c = 0; c < width; ++c) y[g * width + c] = narrow(sums[g * width + c] / total[g], T{});
  }

  const AttentionProblem& p_;
  int64_t padded_;
  Counter heads_;
};

template <class T>
void attend(const AttentionProblem& p, int threads, Parallel parallel) {
  Attention<T> run(p);
  if (threads == 1) run.work();
  else parallel(threads, [](void* context) { static_cast<Attention<T>*>(context)->work(); }, &run);
}

}  // namespace

void rms_norm(const NormProblem& p) {
  switch (p.dtype) {
    case Dtype::bf16: return norm_rows<bf16>(p);
    case Dtype::f16: return norm_rows<f16>(p);
    default: return norm_rows<float>(p);
  }
}

void attention(const AttentionProblem& p, int threads, Parallel parallel) {
  switch (p.dtype) {
    case Dtype::bf16: return attend<bf16>(p, threads, parallel);
    case Dtype::f16: return attend<f16>(p, threads, parallel);
    default: return attend<float>(p, threads, parallel);
  }
}

}  // namespace LAZY_ISA
}  // namespace lazy
