// What an operator may read: shape, dtype and strides of every tensor are checked before its pointer is taken.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace lazy {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The sentence alone: torch's own check puts function, file and line of the build before it.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::runtime_error(sentence.str());
}

#define LAZY_CHECK(condition, ...)                          \
  do {                                                      \
    if (!(condition)) [[unlikely]] lazy::refuse(__VA_ARGS__); \
  } while (0)

constexpr int64_t kAny = -1;  // an axis of any length

inline std::string name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Byte: return "uint8";
    case ScalarType::Char: return "int8";
    case ScalarType::Short: return "int16";
    case ScalarType::Int: return "int32";
    case ScalarType::Long: return "int64";
    default: return "another dtype";
  }
}

template <class Sizes>
std::string written(const Sizes& sizes) {
  std::ostringstream out;
  const char* between = "(";
  for (const int64_t n : sizes) {
    out << between;
    n == kAny ? out << "any" : out << n;
    between = ", ";
  }
  out << (sizes.size() == 0 ? "()" : ")");
  return out.str();
}

// Whether each row is contiguous, and rows follow each other without touching.
inline bool has_rows(const Tensor& t) {
  int64_t inner = 1;
  for (int64_t axis = t.dim() - 1; axis > 0; --axis) {
    if (t.size(axis) != 1 && t.stride(axis) != inner) return false;
    inner *= t.size(axis);
  }
  return t.dim() == 0 || t.numel() == 0 || t.size(0) == 1 || t.stride(0) >= inner;
}

inline void check_tensor(const char* what, const Tensor& t, ScalarType type, std::initializer_list<int64_t> shape,
                         bool apart = false) {
  const auto sizes = t.sizes();
  bool fits = sizes.size() == shape.size();
  if (fits) {
    size_t axis = 0;
    for (const int64_t n : shape) {
      fits &= n == kAny || sizes[axis] == n;
      ++axis;
    }
  }
  const bool contiguous = apart ? has_rows(t) : t.is_contiguous();
  LAZY_CHECK(fits && contiguous && t.scalar_type() == type, what, " must be a contiguous ", name_of(type),
             " tensor of shape ", written(shape), ", got ", contiguous ? "" : "strided ", name_of(t.scalar_type()),
             " of shape ", written(sizes), "; convert or pack it again.");
}

inline void check_memory(const char* what, const Tensor& t, const void* p) {
  LAZY_CHECK(p != nullptr || t.numel() == 0, what, " has lost its memory; give its storage back before the call.");
}

// The numbers of a tensor that is only read.
template <class T = void>
const T* read(const char* what, const Tensor& t, ScalarType type, std::initializer_list<int64_t> shape) {
  check_tensor(what, t, type, shape);
  const void* p = t.const_data_ptr();
  check_memory(what, t, p);
  return static_cast<const T*>(p);
}

template <class T = void>
const T* read(const char* what, const std::optional<Tensor>& t, ScalarType type,
              std::initializer_list<int64_t> shape) {
  return t ? read<T>(what, *t, type, shape) : nullptr;
}

// The numbers of a matrix whose rows may stand apart, and the distance from row to row.
template <class T = void>
const T* read_apart(const char* what, const Tensor& t, ScalarType type, std::initializer_list<int64_t> shape,
                    int64_t* stride) {
  check_tensor(what, t, type, shape, true);
  const void* p = t.const_data_ptr();
  check_memory(what, t, p);
  *stride = t.stride(0);
  return static_cast<const T*>(p);
}

template <class T>
T* write(const char* what, const Tensor& t, ScalarType type, std::initializer_list<int64_t> shape) {
  check_tensor(what, t, type, shape);
  void* p = t.mutable_data_ptr();
  check_memory(what, t, p);
  return static_cast<T*>(p);
}

// What is written while something else is read must not lie in the same memory; both are contiguous.
inline void check_apart(const char* what, const Tensor& a, const Tensor& b) {
  const auto begin = [](const Tensor& t) { return reinterpret_cast<uintptr_t>(t.const_data_ptr()); };
  const auto end = [&](const Tensor& t) { return begin(t) + static_cast<uintptr_t>(t.numel()) * t.element_size(); };
  LAZY_CHECK(end(a) <= begin(b) || end(b) <= begin(a) || a.numel() == 0 || b.numel() == 0, what,
             " share memory; pass a clone of one of them.");
}

inline int64_t product(const char* what, int64_t a, int64_t b) {
  int64_t result = 0;
  LAZY_CHECK(!__builtin_mul_overflow(a, b, &result), what, " is too large: ", a, " times ", b, "; pass less at once.");
  return result;
}

}  // namespace lazy
