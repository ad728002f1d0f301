"""How sharply the loss is curved at a model's weights: trace and largest eigenvalue of its Hessian."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lazyneuron.blocks.borrowed import RandomState, borrowed
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.explain.losses import Loss, samples_in, summed_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharpness:
    """The Hessian of the mean loss in a few numbers.

    Attributes:
        parameters: how many coordinates it has.
        trace: Hutchinson's estimate of its trace.
        trace_error: standard error of that estimate; NaN for a single draw.
        top: its largest eigenvalue, by Lanczos' method; never above the true one, up to rounding.
        top_residual: ``|H v - top v|`` for the unit vector found: an eigenvalue lies within this distance of ``top``.
        draws, steps: how many vectors were used for each.
    """

    parameters: int
    trace: float
    trace_error: float
    top: float
    top_residual: float
    draws: int
    steps: int


def sharpness(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None = None,
    *,
    draws: int = 16,
    steps: int = 24,
    parameters: Sequence[nn.Parameter] | None = None,
    seed: int = 0,
) -> Sharpness:
    """Estimate trace and largest eigenvalue of the Hessian by products with vectors.

    Args:
        model: any model that can be differentiated twice; it stays as it is, and runs in the mode that it is in, with
            the same random numbers for every product.
        batches: items as for :func:`lazyneuron.measure`; all are kept.
        loss: from (output, batch) to the batch's mean loss or to one loss a sample; None takes ``output.loss``.
        draws: random sign vectors for the trace; 0 for none.
        steps: Lanczos steps for the eigenvalue, fewer if the space is exhausted; 0 for none.
        parameters: the coordinates; None takes all that require a gradient.
        seed: of the vectors.

    Returns:
        The numbers; NaN what was not asked for.

    Raises:
        ConfigError: the loss is missing or of the wrong shape, or there is no parameter.
        DataError: there are no batches, or the model cannot run on one.

    Cost: a forward and two backwards for each vector and batch; ``steps`` vectors of float64 are kept.

    Source: Hutchinson (1990); Lanczos (1950), with full reorthogonalisation.
    """
    chosen = [p for p in model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    if not chosen:
        raise ConfigError("There is no parameter that requires a gradient; pass parameters=.")
    items = list(batches)
    if not items:
        raise DataError("There are no batches to look at; pass at least one.")
    # fused attention kernels have no second derivative
    with borrowed(model, observe=True), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        hessian = _Hessian(model, items, loss, chosen)
        generator = torch.Generator().manual_seed(seed)
        traces = [_quadratic(hessian, _signs(hessian.size, generator)) for _ in range(draws)]
        top, residual, made = _lanczos(hessian, steps, generator) if steps else (math.nan, math.nan, 0)
    values = torch.tensor(traces, dtype=torch.float64)
    return Sharpness(
        parameters=hessian.size,
        trace=float(values.mean()) if draws else math.nan,
        trace_error=float(values.std() / math.sqrt(draws)) if draws > 1 else math.nan,
        top=top,
        top_residual=residual,
        draws=draws,
        steps=made,
    )


class _Hessian:
    """Products of the mean loss's Hessian with vectors, in float64 on the host."""

    def __init__(
        self, model: nn.Module, batches: Sequence[Any], loss: Loss | None, parameters: Sequence[nn.Parameter]
    ) -> None:
        self.model, self.batches, self.loss, self.parameters = model, batches, loss, parameters
        self.size = sum(p.numel() for p in parameters)
        self._samples = sum(map(samples_in, batches))
        self._random = RandomState(model)

    def times(self, vector: Tensor) -> Tensor:
        """``H v``."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        shaped = [v.reshape(p.shape).to(p) for v, p in zip(parts, self.parameters, strict=True)]
        total = torch.zeros(self.size, dtype=torch.float64)
        self._random.put_back()
        for batch in self.batches:
            output = call_model(self.model, batch)
            summed = summed_loss(output, batch, self.loss, samples=samples_in(batch))
            gradients = torch.autograd.grad(summed, self.parameters, create_graph=True, allow_unused=True)
            pairs = [(g, v) for g, v in zip(gradients, shaped, strict=True) if g is not None and g.requires_grad]
            if not pairs:  # the loss is linear in all of them
                continue
            inner = torch.stack([(g * v).sum() for g, v in pairs]).sum()
            products = torch.autograd.grad(inner, self.parameters, allow_unused=True)
            flat = [
                torch.zeros(p.numel(), dtype=torch.float64) if h is None else h.detach().reshape(-1).double().cpu()
                for h, p in zip(products, self.parameters, strict=True)
            ]
            total += torch.cat(flat)
        return total / self._samples


def _signs(size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1


def _quadratic(hessian: _Hessian, vector: Tensor) -> float:
    return float(vector @ hessian.times(vector))


def _lanczos(hessian: _Hessian, steps: int, generator: torch.Generator) -> tuple[float, float, int]:
    """The largest Ritz value, its residual, and the steps made."""
    q = torch.randn(hessian.size, generator=generator, dtype=torch.float64)
    basis = [q / q.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, hessian.size)):
        w = hessian.times(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        for _ in range(2):  # once is not enough against rounding
            for v in basis:
                w -= (w @ v) * v
        beside.append(float(w.norm()))
        if beside[-1] <= 1e-10 * max(map(abs, diagonal)):
            break
        basis.append(w / beside[-1])
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    small += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(small)
    return float(values[-1]), beside[len(diagonal) - 1] * abs(float(vectors[-1, -1])), len(diagonal)
