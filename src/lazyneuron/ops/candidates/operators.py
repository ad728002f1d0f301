"""The native operator, with a fake implementation for compilers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.ops.choice import with_fakes
from lazyneuron.ops.sparse_mlp.sketch import Sketch


@functools.cache
def operator() -> Callable[..., Tensor]:
    """The operator ``lazyneuron::candidates``.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    call: Callable[..., Tensor] = with_fakes({"candidates": _fake}).candidates.default
    return call


def _fake(x: Tensor, sketch: Tensor, certificate: Tensor, rows: int, k: int, isa: int = -1) -> Tensor:
    return torch.empty(rows, dtype=torch.uint8)


def candidates(x: Tensor, sketch: Sketch, k: int, *, isa: int = -1) -> Tensor:
    """Which rows of the sketched matrix W may be among the k that give some token its largest products.

    Args:
        x: (..., d_in) on the CPU, float32, bfloat16 or float16, the dtype in which W is stored and products come out.
        sketch: of W, by :func:`lazyneuron.accelerate.slack.certificate.build_sketch`.
        k: from 1 to the number of rows.
        isa: level of the kernels, -1 for the best.

    Returns:
        uint8 (rows,). A row that has 0 is, for every token, strictly smaller than k others, rounded to the dtype, in
        every order of fp32 sums, also after all were divided by one number between 2^-10 and 2^10. Every row has 1
        where nothing can be proved, as for an x that is not finite.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: shapes or dtypes that do not fit.

    Cost:
        Bytes for few tokens: those of the sketch, one a weight.
    """
    return operator()(x, sketch.panels, sketch.certificate, sketch.d_hidden, k, isa)
