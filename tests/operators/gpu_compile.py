"""Compile the Triton kernels to machine code without a GPU: ``python -m tests.operators.gpu_compile 90 bf16 16 1``.

The arguments are the compute capability, the dtype, the bits of a weight (16 for kept ones) and the tokens of a tile.
"""

from __future__ import annotations

import sys
from typing import Any

_POINTERS = {"units": "*i32", "counts": "*i64", "tickets": "*i32", "partial": "*fp32", "found": "*i32"}
_OF_X = ("x", "h", "y", "bias", "up_bias")


def types(fn: Any, dtype: str, bits: int, constants: dict[str, Any]) -> dict[str, str]:
    """Triton's signature of a kernel for weights of these bits."""
    found = {}
    for name in fn.arg_names:
        if name in constants:
            found[name] = "constexpr"
        elif name in ("rows", "up"):
            eight = "*i8" if fn.__name__ == "down" else "*u8"
            found[name] = {16: f"*{dtype}", 8: eight, 4: "*u8"}[bits]
        elif name in ("scale", "up_scale"):
            found[name] = {16: f"*{dtype}", 8: "*fp32", 4: "*bf16"}[bits]
        elif name in _OF_X:
            found[name] = f"*{dtype}"
        else:
            found[name] = _POINTERS.get(name, "fp32" if name in ("a", "b", "limit") else "i32")
    return found


def main(arch: int, dtype: str, bits: int, tile: int) -> None:
    """Compile both kernels with the cut of a block in the sizes of Llama 3.1 8B; a failure raises."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lazyneuron.ops.gpu_mlp import kernels
    from lazyneuron.ops.gpu_mlp.tiles import tiles_for

    cut = tiles_for(tokens=tile, hidden=14336, d_out=4096, bits=bits, device=torch.device("cpu"))
    shared = {"BITS": bits, "HAS_BIAS": True, "T": tile}
    first = {"KIND": 2, "GATED": True, "RECTIFY": True, "HAS_UP_BIAS": True, "COUNT": True, "TICKETS": 128}
    first |= {"N": cut.neurons, "K": cut.inputs}
    down = {"GROUP": 32, "SEGMENTS": cut.segments, "LENGTH": cut.length(14336), "N": cut.columns, "R": cut.rows}
    for fn, own in ((kernels.first, first), (kernels.down, down)):
        constants = shared | own
        source = ASTSource(
            fn=fn, signature=types(fn, dtype, bits, constants),
            constexprs={(fn.arg_names.index(name),): value for name, value in constants.items()},
        )  # fmt: skip
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": cut.warps})
        print(fn.__name__, len(compiled.asm["cubin"]) > 0, compiled.metadata.shared)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
