// Sixteen lanes of floats and integers, as each ISA level holds them: in one register, or in pairs of halves down to one.
// GCC 12 keeps vectors that are wider than a register in memory, also the sums of a loop.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "problem.h"

#define LAZY_INLINE inline __attribute__((always_inline))
#define LAZY_LAMBDA __attribute__((always_inline))

namespace lazy {
namespace LAZY_ISA {

template <class V>
LAZY_INLINE V load_as(const void* p);

// f(0), f(1) .. with constants. GCC 12 unrolls a loop too late for the sums that it indexes to become registers.
template <int N, class F>
LAZY_INLINE void unrolled(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) LAZY_LAMBDA {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

#if defined(__AVX512F__)

typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));

template <class To, class From>
LAZY_INLINE To convert(From v) { return __builtin_convertvector(v, To); }

template <class Mask, class V>
LAZY_INLINE V select(Mask mask, V a, V b) { return mask ? a : b; }

template <class V>
constexpr bool kHalved = false;

#else

// What a register holds.
#if defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
typedef float Floats __attribute__((vector_size(kRegister)));
typedef int32_t Integers __attribute__((vector_size(kRegister)));
typedef uint32_t Words __attribute__((vector_size(kRegister)));

// Twice as many lanes as Half: operators work as those of GCC's vectors.
template <class Half>
struct Two {
  Half low, high;

  using Number = std::remove_cvref_t<decltype(std::declval<Half&>()[0])>;
  static constexpr int kHalf = sizeof(Half) / sizeof(Number);  // lanes

  LAZY_INLINE Number operator[](int lane) const { return load_as<Number>(reinterpret_cast<const Number*>(this) + lane); }

  LAZY_INLINE Two operator-() const { return {-low, -high}; }
  LAZY_INLINE Two operator~() const { return {~low, ~high}; }
};

template <class V>
constexpr bool kHalved = false;
template <class Half>
constexpr bool kHalved<Two<Half>> = true;

#define LAZY_LANES_OPERATOR(op)                                                                            \
  template <class H>                                                                                       \
  LAZY_INLINE auto operator op(const Two<H>& a, const Two<H>& b) {                                         \
    return Two<std::remove_cvref_t<decltype(a.low op b.low)>>{a.low op b.low, a.high op b.high};           \
  }                                                                                                        \
  template <class H, class Number>                                                                         \
    requires std::is_arithmetic_v<Number>                                                                  \
  LAZY_INLINE auto operator op(const Two<H>& a, Number b) {                                                \
    return Two<std::remove_cvref_t<decltype(a.low op b)>>{a.low op b, a.high op b};                        \
  }                                                                                                        \
  template <class H, class Number>                                                                         \
    requires std::is_arithmetic_v<Number>                                                                  \
  LAZY_INLINE auto operator op(Number a, const Two<H>& b) {                                                \
    return Two<std::remove_cvref_t<decltype(a op b.low)>>{a op b.low, a op b.high};                        \
  }
LAZY_LANES_OPERATOR(+)
LAZY_LANES_OPERATOR(-)
LAZY_LANES_OPERATOR(*)
LAZY_LANES_OPERATOR(/)
LAZY_LANES_OPERATOR(&)
LAZY_LANES_OPERATOR(|)
LAZY_LANES_OPERATOR(^)
LAZY_LANES_OPERATOR(<<)
LAZY_LANES_OPERATOR(>>)
LAZY_LANES_OPERATOR(<)
LAZY_LANES_OPERATOR(<=)
LAZY_LANES_OPERATOR(>)
LAZY_LANES_OPERATOR(>=)
LAZY_LANES_OPERATOR(==)
LAZY_LANES_OPERATOR(!=)
#undef LAZY_LANES_OPERATOR

#define LAZY_LANES_ASSIGNMENT(op)                                                         \
  template <class H, class Other>                                                         \
  LAZY_INLINE Two<H>& operator op##=(Two<H>& a, const Other& b) { return a = a op b; }
LAZY_LANES_ASSIGNMENT(+)
LAZY_LANES_ASSIGNMENT(-)
LAZY_LANES_ASSIGNMENT(*)
LAZY_LANES_ASSIGNMENT(&)
LAZY_LANES_ASSIGNMENT(|)
#undef LAZY_LANES_ASSIGNMENT

#if defined(__AVX2__)
typedef Two<Floats> v16f;
typedef Two<Integers> v16i;
typedef Two<Words> v16u;
#else
typedef Two<Two<Floats>> v16f;
typedef Two<Two<Integers>> v16i;
typedef Two<Two<Words>> v16u;
#endif

template <class To, class From>
LAZY_INLINE To convert(const From& v) {
  if constexpr (kHalved<From>) return {convert<decltype(To::low)>(v.low), convert<decltype(To::high)>(v.high)};
  else return __builtin_convertvector(v, To);
}

template <class Mask, class V>
LAZY_INLINE V select(const Mask& mask, const V& a, const V& b) {
  if constexpr (kHalved<V>) return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
  else return mask ? a : b;
}

// Made register by register: f(first lane).
template <class V, class F>
LAZY_INLINE V by_register(const F& f, int lane = 0) {
  if constexpr (kHalved<V>) return {by_register<decltype(V::low)>(f, lane), by_register<decltype(V::high)>(f, lane + V::kHalf)};
  else return f(lane);
}

#endif

// Any number or vector from memory, a register at a time.
template <class V>
LAZY_INLINE V load_as(const void* p) {
  if constexpr (kHalved<V>) {
    return {load_as<decltype(V::low)>(p), load_as<decltype(V::high)>(static_cast<const char*>(p) + sizeof(V) / 2)};
  } else {
    V v;
    std::memcpy(&v, p, sizeof(V));
    return v;
  }
}

template <class V>
LAZY_INLINE void store(void* p, const V& v) {
  if constexpr (kHalved<V>) {
    store(p, v.low);
    store(static_cast<char*>(p) + sizeof(V) / 2, v.high);
  } else {
    std::memcpy(p, &v, sizeof(V));
  }
}

// The same bits as lanes of another kind.
template <class To, class From>
LAZY_INLINE To bits_as(const From& v) {
  if constexpr (kHalved<To>) return {bits_as<decltype(To::low)>(v.low), bits_as<decltype(To::high)>(v.high)};
  else return reinterpret_cast<To>(v);
}

}  // namespace LAZY_ISA
}  // namespace lazy
