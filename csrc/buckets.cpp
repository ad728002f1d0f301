// Buckets: hash rows to integer vectors, cons the vectors to slots, add up and evaluate by slot.
//
// A lookup touches memory at random, so it goes in steps over a block of rows: each step asks for the lines of the next.
#include "buckets.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lazy {
namespace LAZY_ISA {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kLanes = 8;
constexpr int64_t kGroup = 8, kLag = 4;       // rows of predict(), and groups between its stages
constexpr int64_t kStackKeys = 3 * 4096;      // ints of rows on their way; wider keys go row by row

inline void ask(const void* p) { __builtin_prefetch(p, 0, 3); }

inline uint64_t mix(const int32_t* key, int64_t n) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ static_cast<uint64_t>(n);
  int64_t k = 0;
  for (; k + 1 < n; k += 2) {
    uint64_t two;
    std::memcpy(&two, key + k, 8);
    h = (h ^ two) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 32;
  }
  if (k < n) {
    h = (h ^ static_cast<uint32_t>(key[k])) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 32;
  }
  h *= 0xC4CEB9FE1A85EC53ull;
  return h ^ (h >> 29);
}

inline bool same(const int32_t* a, const int32_t* b, int64_t n) { return std::memcmp(a, b, n * sizeof(int32_t)) == 0; }
inline uint64_t tag(uint64_t h) { return h & 0xFFFFFFFF00000000ull; }
inline int64_t slot_of(uint64_t entry) { return static_cast<int64_t>(entry & 0xFFFFFFFFull) - 1; }
inline bool in_use(const Table& t, int64_t slot) { return static_cast<uint64_t>(slot) < static_cast<uint64_t>(t.count); }

template <class T>
RowStatus hash_lanes(const Affine& a, const T* x, int64_t rows, int32_t* out) {
  bool finite = true, inside = true;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * a.features;
    for (int64_t c = 0; c < a.hashes; c += kLanes) {
      double sum[kLanes];
      int32_t z[kLanes];
      for (int k = 0; k < kLanes; ++k) sum[k] = a.b[c + k];
      for (int64_t j = 0; j < a.features; ++j) {
        const double v = static_cast<double>(row[j]);
        const double* w = a.w + j * a.padded + c;
        for (int k = 0; k < kLanes; ++k) sum[k] += v * w[k];
      }
      int wrong = 0, strange = 0;
      for (int k = 0; k < kLanes; ++k) {
        const double v = sum[k];
        strange |= !(std::fabs(v) <= 1.7976931348623157e308);
        wrong |= !(std::fabs(v) < 2147483647.0);
        const double safe = std::fabs(v) < 2147483647.0 ? v : 0.0;
        const int32_t t = static_cast<int32_t>(safe);
        z[k] = (t - (static_cast<double>(t) > safe ? 1 : 0)) >> a.shift;
      }
      finite &= !strange;
      inside &= !wrong;
      const int64_t n = std::min(kLanes, a.hashes - c);
      if (n == kLanes) std::memcpy(out + r * a.hashes + c, z, sizeof z);
      else std::memcpy(out + r * a.hashes + c, z, n * sizeof(int32_t));
    }
  }
  return !finite ? RowStatus::not_finite : !inside ? RowStatus::overflow : RowStatus::fine;
}

RowStatus hash_rows(const Affine& a, int64_t begin, int64_t end, int32_t* out) {
  if (a.single) return hash_lanes(a, static_cast<const float*>(a.x) + begin * a.features, end - begin, out);
  return hash_lanes(a, static_cast<const double*>(a.x) + begin * a.features, end - begin, out);
}

RowStatus hash(const Affine& a, int64_t begin, int64_t end, int32_t* out) {
  return hash_rows(a, begin, end, out + begin * a.hashes);
}

// The slot that a hash leads to first, or -1; an index that is not of these keys may lead anywhere.
inline int64_t first_slot(const Table& t, uint64_t h) {
  const uint64_t entry = static_cast<uint64_t>(t.index[h & t.mask]);
  return entry && tag(entry) == tag(h) && in_use(t, slot_of(entry)) ? slot_of(entry) : -1;
}

inline void ask_key(const Table& t, uint64_t h) {
  if (const int64_t slot = first_slot(t, h); slot >= 0) ask(t.keys + slot * t.hashes);
}

constexpr int64_t kAbsent = -1, kForeign = -2;

// The slot of a key: kAbsent when it has none, with its empty place in `at`.
inline int64_t probe(const Table& t, const int32_t* key, uint64_t h, uint64_t& at) {
  at = h & t.mask;
  for (uint64_t left = t.mask + 1; left; --left, at = (at + 1) & t.mask) {
    const uint64_t entry = static_cast<uint64_t>(t.index[at]);
    if (entry == 0) return kAbsent;
    if (tag(entry) != tag(h)) continue;
    const int64_t slot = slot_of(entry);
    if (!in_use(t, slot)) return kForeign;
    if (same(t.keys + slot * t.hashes, key, t.hashes)) return slot;
  }
  return kForeign;
}

// The slots of at most kBlock rows.
inline RowStatus find_block(const Table& t, const int32_t* rows, int64_t n, int64_t* slots) {
  uint64_t h[kBlock], at;
  for (int64_t r = 0; r < n; ++r) {
    h[r] = mix(rows + r * t.hashes, t.hashes);
    ask(t.index + (h[r] & t.mask));
  }
  for (int64_t r = 0; r < n; ++r) ask_key(t, h[r]);
  bool foreign = false;
  for (int64_t r = 0; r < n; ++r) {
    const int64_t slot = probe(t, rows + r * t.hashes, h[r], at);
    foreign |= slot == kForeign;
    slots[r] = std::max(slot, kAbsent);
  }
  return foreign ? RowStatus::foreign : RowStatus::fine;
}

RowStatus find(const Table& t, const int32_t* rows, int64_t begin, int64_t end, int64_t* slots) {
  RowStatus worst = RowStatus::fine;
  for (int64_t r = begin; r < end; r += kBlock)
    worst = std::max(worst, find_block(t, rows + r * t.hashes, std::min(kBlock, end - r), slots + r));
  return worst;
}

RowStatus insert(Table& t, const int32_t* rows, int64_t begin, int64_t end, int64_t* slots, int64_t* done) {
  *done = 0;
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t stop = std::min(end, start + kBlock);
    uint64_t h[kBlock];
    for (int64_t r = start; r < stop; ++r) {
      h[r - start] = mix(rows + r * t.hashes, t.hashes);
      ask(t.index + (h[r - start] & t.mask));
    }
    for (int64_t r = start; r < stop; ++r) ask_key(t, h[r - start]);
    for (int64_t r = start; r < stop; ++r) {
      const int32_t* key = rows + r * t.hashes;
      const uint64_t own = h[r - start];
      uint64_t at;
      int64_t slot = probe(t, key, own, at);
      if (slot == kForeign) return RowStatus::foreign;
      if (slot == kAbsent) {
        if (t.count >= t.capacity) return RowStatus::fine;
        slot = t.count++;
        std::memmove(t.keys + slot * t.hashes, key, t.hashes * sizeof(int32_t));  // rows may be keys of this table
        t.index[at] = static_cast<int64_t>(tag(own) | static_cast<uint64_t>(slot + 1));
      }
      slots[r] = slot;
      ++*done;
    }
  }
  return RowStatus::fine;
}

void rehash(Table& t) {
  std::fill(t.index, t.index + t.mask + 1, 0);
  for (int64_t start = 0; start < t.count; start += kBlock) {
    const int64_t stop = std::min(t.count, start + kBlock);
    uint64_t h[kBlock];
    for (int64_t s = start; s < stop; ++s) {
      h[s - start] = mix(t.keys + s * t.hashes, t.hashes);
      ask(t.index + (h[s - start] & t.mask));
    }
    for (int64_t s = start; s < stop; ++s) {
      uint64_t at = h[s - start] & t.mask;
      while (t.index[at] != 0) at = (at + 1) & t.mask;
      t.index[at] = static_cast<int64_t>(tag(h[s - start]) | static_cast<uint64_t>(s + 1));
    }
  }
}

void accumulate(const Sums& s, const int64_t* slots, const double* x, const double* y, int64_t rows) {
  const int64_t d = s.features, o = s.outputs;
  constexpr int64_t ahead = 16;
  for (int64_t r = 0; r < rows; ++r) {
    if (r + ahead < rows && slots[r + ahead] >= 0) {
      const double* next = s.rows + slots[r + ahead] * s.width;
      for (int64_t k = 0; k < s.width; k += 8) ask(next + k);
    }
    if (slots[r] < 0) continue;
    double* row = s.rows + slots[r] * s.width;
    const double* yr = y + r * o;
    row[0] += 1.0;
    for (int64_t k = 0; k < o; ++k) row[1 + k] += yr[k];
    for (int64_t k = 0; k < o; ++k) row[1 + o + k] += yr[k] * yr[k];
    if (s.degree == 0) continue;
    const double* xr = x + r * d;
    double* at = row + 1 + 2 * o;
    for (int64_t j = 0; j < d; ++j) at[j] += xr[j];
    at += d;
    for (int64_t i = 0; i < d; ++i) {
      const double v = xr[i];
      for (int64_t j = i; j < d; ++j) at[j - i] += v * xr[j];
      at += d - i;
    }
    for (int64_t k = 0; k < o; ++k, at += d)
      for (int64_t j = 0; j < d; ++j) at[j] += xr[j] * yr[k];
  }
}

// One row's polynomials; zeros without a bucket.
template <class T>
inline void evaluate(const T* x, const Polynomials& p, int64_t slot, double* y) {
  const double* row = p.values + slot * p.outputs * p.stride;
  for (int64_t k = 0; k < p.outputs; ++k, row += p.stride) {
    double sum = slot < 0 ? 0.0 : row[0];
    if (slot >= 0)
      for (int64_t j = 1; j < p.stride; ++j) sum += row[j] * static_cast<double>(x[j - 1]);
    y[k] = sum;
  }
}

// Groups of rows in three stages: while one is hashed, the index of an earlier one and, as soon as that says which
// slots, the keys and polynomials of one before it are on their way.
template <class T>
RowStatus predict_rows(const Affine& a, const Table& t, const Polynomials& p, int64_t begin, int64_t end, double* y,
                       int64_t* slots) {
  constexpr int64_t lines = 8;  // of a bucket that are asked for
  int32_t keys[kStackKeys];
  uint64_t h[(2 * kLag + 1) * kGroup];
  const bool wide = (2 * kLag + 1) * kGroup * a.hashes > kStackKeys;
  const int64_t group = wide ? 1 : kGroup, lag = wide ? 1 : kLag, ring = 2 * lag + 1;
  const int64_t groups = (end - begin + group - 1) / group, asked = std::min(p.outputs * p.stride, lines * 8);
  const T* x = static_cast<const T*>(a.x);
  RowStatus worst = RowStatus::fine;
  uint64_t at;
  for (int64_t i = 0; i < groups + 2 * lag; ++i) {
    if (i < groups) {
      const int64_t r = begin + i * group, n = std::min(group, end - r), place = i % ring * group;
      worst = std::max(worst, hash_lanes(a, x + r * a.features, n, keys + place * a.hashes));
      for (int64_t k = 0; k < n; ++k) {
        h[place + k] = mix(keys + (place + k) * a.hashes, a.hashes);
        ask(t.index + (h[place + k] & t.mask));
      }
    }
    if (i >= lag && i - lag < groups) {
      const int64_t n = std::min(group, end - begin - (i - lag) * group), place = (i - lag) % ring * group;
      for (int64_t k = 0; k < n; ++k) {
        const int64_t slot = first_slot(t, h[place + k]);
        if (slot < 0) continue;
        ask(t.keys + slot * t.hashes);
        for (int64_t v = 0; v < asked; v += 8) ask(p.values + slot * p.outputs * p.stride + v);
      }
    }
    if (i >= 2 * lag) {
      const int64_t r = begin + (i - 2 * lag) * group, n = std::min(group, end - r), place = i % ring;
      const int64_t from = (place + 1) % ring * group;  // 2 * lag groups ago: the next place of the ring
      for (int64_t k = 0; k < n; ++k) {
        const int64_t slot = probe(t, keys + (from + k) * a.hashes, h[from + k], at);
        if (slot == kForeign) worst = std::max(worst, RowStatus::foreign);
        slots[r + k] = std::max(slot, kAbsent);
        evaluate(x + (r + k) * a.features, p, slots[r + k], y + (r + k) * p.outputs);
      }
    }
  }
  return worst;
}

RowStatus predict(const Affine& a, const Table& t, const Polynomials& p, int64_t begin, int64_t end, double* y,
                  int64_t* slots) {
  return a.single ? predict_rows<float>(a, t, p, begin, end, y, slots)
                  : predict_rows<double>(a, t, p, begin, end, y, slots);
}

}  // namespace

BucketKernels bucket_kernels() { return {hash, find, insert, rehash, accumulate, predict}; }

}  // namespace LAZY_ISA
}  // namespace lazy
