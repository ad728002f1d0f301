// The ISA levels that kernels are compiled for, in the order of the builder's names.
#pragma once
#include <cstdint>

namespace lazy {

// 0 portable, 1 avx2, 2 avx512, 3 avx512_vnni
inline int64_t find_best_isa() {
#ifndef LAZY_PORTABLE_ONLY
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  return vnni ? 3 : avx512 ? 2 : avx2 ? 1 : 0;
#else
  return 0;
#endif
}

}  // namespace lazy
