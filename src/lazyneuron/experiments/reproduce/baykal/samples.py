"""What the experiments of Baykal et al. share: samples of the targets, and models fitted in closed form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lazyneuron.route import DSM, HyperplaneLSH, TopK, random_hypercube_function, random_polynomial
from lazyneuron.route.least_squares import solve_top

SOURCE = "Baykal, Dikkala, Panigrahy, Rashtchian, Wang (NeurIPS 2022), arXiv 2208.04461"
FEATURES = 8
CLOSED_FORM = (
    "Top layers are fitted in closed form (ridge 1e-6 a row) instead of by gradient descent, so that no learning rate "
    "decides."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Inputs uniform on the cube (or a subspace of it) with a target's values, for fitting and for testing."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def variance(self) -> float:
        """Mean squared error of the best constant."""
        return float(self.y_test.var())


def draw(target: str, *, rows: int, tests: int, seed: int, dimension: int | None = None) -> Sample:
    """A random target and inputs.

    Args:
        target: ``"polynomial"`` or ``"hypercube"``.
        rows, tests: how many.
        seed: of the target and of the inputs.
        dimension: put the inputs on a subspace of that dimension, inside the cube; None fills the cube.
    """
    make: Mapping[str, Callable[..., Callable[[Tensor], Tensor]]] = {
        "polynomial": random_polynomial,
        "hypercube": random_hypercube_function,
    }
    f = make[target](FEATURES, seed=seed)
    g = torch.Generator().manual_seed(seed + 1000)
    if dimension is None:
        x = 2 * torch.rand(rows + tests, FEATURES, generator=g, dtype=torch.float64) - 1
    else:
        basis = torch.linalg.qr(torch.randn(FEATURES, dimension, generator=g, dtype=torch.float64))[0].t()
        u = 2 * torch.rand(rows + tests, dimension, generator=g, dtype=torch.float64) - 1
        x = u @ (basis / basis.abs().sum(0).max())
    parts = torch.split(x, 16384)
    y = torch.cat([f(part) for part in parts])[:, None]
    return Sample(x=x[:rows].float(), y=y[:rows], x_test=x[rows:].float(), y_test=y[rows:])


def mean_squared_error(model: DSM, sample: Sample) -> float:
    """Mean squared error on the test inputs after the top layer was fitted."""
    top, bias = solve_top(model, sample.x, sample.y)
    with torch.no_grad():
        model.top.data = top.to(model.top.dtype)
        parts = [model(part).double() + bias for part in torch.split(sample.x_test, 4096)]
    return float((torch.cat(parts) - sample.y_test).square().mean())


def masked_network(width: int, active: int, *, seed: int, own_scores: bool = True) -> DSM:
    """A frozen random ReLU layer without biases, of which the ``active`` best-scored units of ``width`` are kept.

    Args:
        width: t; ``active = width`` is the dense model.
        active: s.
        seed: of the layer.
        own_scores: units are scored by their own pre-activation, or else by random weights of their own.
    """
    g = torch.Generator().manual_seed(seed)
    bottom = torch.randn(width, FEATURES, generator=g) / math.sqrt(FEATURES)
    scores = bottom if own_scores else torch.randn(width, FEATURES, generator=g)
    return DSM(TopK(FEATURES, width, active=active, bottom=scores), torch.zeros(1, width), bottom=bottom)


def bucket_error(sample: Sample, *, bits: int, tables: int = 1, seed: int) -> float:
    """Test error of an LSH model with a constant a bucket: bucket means, and for several tables their average.

    A bucket without a row answers with the overall mean.
    """
    router = HyperplaneLSH(FEATURES, bits, tables=tables, seed=seed)
    train, test = router.route(sample.x).indices, router.route(sample.x_test).indices
    mean = sample.y.mean()
    total = torch.zeros(router.width, dtype=torch.float64).index_add_(
        0, train.flatten(), (sample.y - mean).expand(-1, tables).flatten()
    )
    count = torch.bincount(train.flatten(), minlength=router.width).clamp(min=1)
    predicted = mean + (total / count)[test].mean(1, keepdim=True)
    return float((predicted - sample.y_test).square().mean())
