// A fingerprint of a row of bytes: 64 chains modulo 2^32 side by side, then one sum modulo 2^64.
// Every step can be undone, since all multipliers are odd: a row that differs in one word never has the same fingerprint.
// The rotation carries changes of a word's upper bits down: without it, signs that all change cancel in pairs.
#include "fingerprint.h"

#include "simd.h"

namespace lazy {
namespace LAZY_ISA {
namespace {

constexpr int kVectors = 4;  // enough to hide the latency of a multiplication
constexpr int64_t kStride = kVectors * 64;
constexpr uint32_t kBase = 0x9E3779B1u;
constexpr uint64_t kMix = 0x9E3779B97F4A7C15ull;

LAZY_INLINE void absorb(v16u* lanes, const uint8_t* from) {
  for (int k = 0; k < kVectors; ++k)
    lanes[k] = ((lanes[k] << 15) | (lanes[k] >> 17)) * kBase + load_as<v16u>(from + 64 * k);
}

}  // namespace

uint64_t row_print(const uint8_t* row, int64_t bytes) {
  v16u lanes[kVectors] = {};
  int64_t at = 0;
  for (; at + kStride <= bytes; at += kStride) absorb(lanes, row + at);
  if (at < bytes) {
    alignas(64) uint8_t tail[kStride] = {};
    std::memcpy(tail, row + at, static_cast<size_t>(bytes - at));
    absorb(lanes, tail);
  }
  uint64_t sum = static_cast<uint64_t>(bytes), odd = kMix;
  for (int k = 0; k < kVectors; ++k)
    for (int lane = 0; lane < 16; ++lane, odd = odd * kMix) sum += odd * lanes[k][lane];
  return sum;
}

}  // namespace LAZY_ISA
}  // namespace lazy
