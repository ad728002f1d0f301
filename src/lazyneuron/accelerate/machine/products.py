"""How many bits torch's matrix products of float32 keep."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_NARROW = ("tf32", "bf16", "medium", "high")


def allowed() -> str:
    """What torch may round the factors of a float32 product to: "tf32", "bf16", or something else for not at all."""
    products = getattr(torch.backends.mkldnn, "matmul", None)  # torch has these settings in classes without types
    return str(getattr(products, "fp32_precision", torch.get_float32_matmul_precision()))


def are_narrow() -> bool:
    """Are factors rounded here? Where that is allowed, a product tells whether the processor makes use of it."""
    if allowed() not in _NARROW:
        return False
    ones = torch.ones(256, 256)
    exact = 256 + 2.0**-4
    return bool((F.linear(ones * (exact / 256), ones) != exact).any())
