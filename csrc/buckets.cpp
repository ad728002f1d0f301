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
constexpr int64_t kStackKeys = kBlock * 64;  // ints of a group that predict() holds; wider keys take smaller groups

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

inline bool same(const int32_t* a, const int32_t* b, int64_t n) {
  uint64_t differ = 0;
  int64_t k = 0;
  for (; k + 1 < n; k += 2) {
    uint64_t x, y;
    std::memcpy(&x, a + k, 8);
    std::memcpy(&y, b + k, 8);
    differ |= x ^ y;
  }
  if (k < n) differ |= static_cast<uint32_t>(a[k]) ^ static_cast<uint32_t>(b[k]);
  return differ == 0;
}
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

// Asks for the key that a hash leads to first; an index that is not of these keys may lead anywhere.
inline void ask_key(const Table& t, uint64_t h) {
  const uint64_t entry = static_cast<uint64_t>(t.index[h & t.mask]);
  if (entry && tag(entry) == tag(h) && in_use(t, slot_of(entry))) ask(t.keys + slot_of(entry) * t.hashes);
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

inline uint16_t short_tag(uint64_t h) { return static_cast<uint16_t>(h) | 1; }
inline int64_t home(const Packed& p, uint64_t h) {
  return static_cast<int64_t>((h >> 32) * static_cast<uint64_t>(p.places) >> 32);
}
inline const int32_t* key_at(const Packed& p, int64_t place) {
  return reinterpret_cast<const int32_t*>(p.records + place * p.words);
}

void pack(const int32_t* keys, const double* values, int64_t count, const Packed& p) {
  std::fill(p.tags, p.tags + p.places + Packed::kNear, uint16_t{0});
  const int64_t first = Packed::key_words(p.hashes);
  for (int64_t start = 0; start < count; start += kBlock) {
    const int64_t stop = std::min(count, start + kBlock);
    uint64_t h[kBlock];
    for (int64_t s = start; s < stop; ++s) {
      h[s - start] = mix(keys + s * p.hashes, p.hashes);
      ask(p.tags + home(p, h[s - start]));
    }
    for (int64_t s = start; s < stop; ++s) {
      int64_t at = home(p, h[s - start]);
      while (p.tags[at]) at = at + 1 == p.places ? 0 : at + 1;
      p.tags[at] = short_tag(h[s - start]);
      if (at < Packed::kNear) p.tags[p.places + at] = p.tags[at];
      int64_t* record = p.records + at * p.words;
      std::memcpy(record, keys + s * p.hashes, p.hashes * sizeof(int32_t));
      if (p.columns) std::memcpy(record + first, values + s * p.columns, p.columns * sizeof(double));  // else there are none
      record[first + p.columns] = s;
    }
  }
}

// The first of kNear places from `at` on with this tag, chosen without a branch, as which one it is cannot be predicted.
inline int64_t likely_place(const Packed& p, int64_t at, uint16_t tag) {
  int64_t found = -1;
  for (int64_t k = Packed::kNear - 1; k >= 0; --k) found = p.tags[at + k] == tag ? at + k : found;
  return found >= p.places ? found - p.places : found;
}

// The place of a key, found one by one; -1 when it has none.
inline int64_t place_of(const Packed& p, const int32_t* key) {
  const uint64_t h = mix(key, p.hashes);
  int64_t at = home(p, h);
  for (int64_t left = p.places; left && p.tags[at]; --left, at = at + 1 == p.places ? 0 : at + 1)
    if (p.tags[at] == short_tag(h) && same(key_at(p, at), key, p.hashes)) return at;
  return -1;
}

// Groups of rows in three stages: while one is hashed, tags of the one before and records of the one before that are on
// their way. The tags of all places are so few bytes that caches hold what records are asked for by.
template <class T>
RowStatus predict_rows(const Affine& a, const Packed& p, int64_t outputs, int64_t begin, int64_t end, double* y,
                       int64_t* slots) {
  constexpr int64_t stages = 3;
  int32_t keys[stages * kStackKeys];
  int64_t at[stages][kBlock];
  uint16_t tags[stages][kBlock];
  const int64_t group = std::min(kBlock, kStackKeys / a.hashes), groups = (end - begin + group - 1) / group;
  const int64_t asked = std::min<int64_t>(p.words, 64), first = Packed::key_words(p.hashes);
  const int64_t stride = outputs ? p.columns / outputs : 1;
  const T* x = static_cast<const T*>(a.x);
  RowStatus worst = RowStatus::fine;
  const auto rows_of = [&](int64_t i) { return std::min(group, end - begin - i * group); };
  for (int64_t i = 0; i < groups + stages - 1; ++i) {
    if (i < groups) {
      const int64_t c = i % stages, n = rows_of(i);
      int32_t* z = keys + c * kStackKeys;
      worst = std::max(worst, hash_lanes(a, x + (begin + i * group) * a.features, n, z));
      for (int64_t k = 0; k < n; ++k) {
        const uint64_t h = mix(z + k * a.hashes, a.hashes);
        at[c][k] = home(p, h);
        tags[c][k] = short_tag(h);
        ask(p.tags + at[c][k]);
      }
    }
    if (i >= 1 && i - 1 < groups) {
      const int64_t c = (i - 1) % stages, n = rows_of(i - 1);
      for (int64_t k = 0; k < n; ++k) {
        at[c][k] = likely_place(p, at[c][k], tags[c][k]);
        if (at[c][k] >= 0)
          for (int64_t w = 0; w < asked; w += 8) ask(p.records + at[c][k] * p.words + w);
      }
    }
    if (i >= 2) {
      const int64_t c = (i - 2) % stages, n = rows_of(i - 2), r = begin + (i - 2) * group;
      for (int64_t k = 0; k < n; ++k) {
        const int32_t* key = keys + c * kStackKeys + k * a.hashes;
        int64_t place = at[c][k];
        if (place < 0 || !same(key_at(p, place), key, p.hashes)) place = place_of(p, key);
        slots[r + k] = place < 0 ? -1 : p.records[place * p.words + first + p.columns];
        const double* row = reinterpret_cast<const double*>(p.records) + std::max<int64_t>(place, 0) * p.words + first;
        const T* xr = x + (r + k) * a.features;
        for (int64_t o = 0; o < outputs; ++o, row += stride) {
          double sum = place < 0 ? 0.0 : row[0];
          if (place >= 0)
            for (int64_t j = 1; j < stride; ++j) sum += row[j] * static_cast<double>(xr[j - 1]);
          y[(r + k) * outputs + o] = sum;
        }
      }
    }
  }
  return worst;
}

RowStatus predict(const Affine& a, const Packed& p, int64_t outputs, int64_t begin, int64_t end, double* y,
                  int64_t* slots) {
  return a.single ? predict_rows<float>(a, p, outputs, begin, end, y, slots)
                  : predict_rows<double>(a, p, outputs, begin, end, y, slots);
}

}  // namespace

BucketKernels bucket_kernels() { return {hash, find, insert, rehash, accumulate, pack, predict}; }

}  // namespace LAZY_ISA
}  // namespace lazy
