"""A C++ compiler for the build of the kernels that emulates AVX-512: name it in ``CXX``.

Sources of an AVX-512 level are compiled for AVX2, with the intrinsics of ``avx512.h`` in place of the processor's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HEADER = Path(__file__).with_name("avx512.h")
# what asks the processor; the emulated one has all that the kernels know
_HAS_ALL = "-D__builtin_cpu_supports(feature)=(sizeof(feature)>0)"


def rewritten(arguments: list[str]) -> list[str]:
    """The arguments for a compiler that knows no AVX-512."""
    if not any(argument.startswith("-mavx512") for argument in arguments):
        return [_HAS_ALL, *arguments]
    if "-mavx512vpopcntdq" in arguments:  # the Boolean cube, which has no intrinsics: the same code, narrower
        return [argument for argument in arguments if not argument.startswith("-mavx512")]
    vnni = ["-DLAZY_EMULATED_VNNI"] if "-mavx512vnni" in arguments else []
    kept = [argument for argument in arguments if not argument.startswith("-mavx512")]
    return [_HAS_ALL, "-Wno-psabi", *vnni, "-include", str(_HEADER), *kept]


if __name__ == "__main__":
    os.execvp("g++", ["g++", *rewritten(sys.argv[1:])])
