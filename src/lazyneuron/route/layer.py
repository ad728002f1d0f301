"""A layer whose cost does not depend on how many units it has: each input reads the rows that its router names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError
from lazyneuron.route.router import Router


class SparseLayer(nn.Module):
    """``sum over active units i of weight_i (a_i + B_i x)``: a constant or an affine function for each unit.

    Args:
        router: maps inputs to units.
        out_features: length of an output.
        degree: 0 for a constant a unit, 1 for an affine function of the input.
        sparse: give the table sparse gradients, so that an optimiser that understands them (``torch.optim.SparseAdam``,
            ``torch.optim.SGD``, ``torch.optim.Adagrad``) reads and writes only rows that were used.

    Attributes:
        table: (units, out_features * (1 + degree * features)), starting at 0.

    Raises:
        ConfigError: a degree that is not 0 or 1, or no output.

    Cost: FLOPs of an input: the router's and ``2 active out_features (1 + degree features)``; the same for any number
    of
        units.

    Example:
        >>> from lazyneuron.route import HyperplaneLSH
        >>> layer = SparseLayer(HyperplaneLSH(8, 10, tables=4), 3)
        >>> layer(torch.randn(5, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(self, router: Router, out_features: int, *, degree: int = 0, sparse: bool = True) -> None:
        super().__init__()
        if degree not in (0, 1) or out_features < 1:
            raise ConfigError(f"The degree is 0 or 1, of at least one output; got {degree} and {out_features}.")
        self.router, self.out_features, self.degree, self.sparse = router, out_features, degree, sparse
        self.table = nn.Parameter(torch.zeros(router.width, out_features * (1 + degree * router.features)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) to (..., out_features)."""
        indices, weights = self.router(x)
        flat, wide = indices.flatten(0, -2), weights.flatten(0, -2).to(self.table.dtype)
        if not self.degree:
            y = F.embedding_bag(flat, self.table, mode="sum", per_sample_weights=wide, sparse=self.sparse)
            return y.reshape(*x.shape[:-1], self.out_features)
        rows = F.embedding(flat, self.table, sparse=self.sparse)
        rows = rows.reshape(*flat.shape, self.out_features, 1 + self.router.features)
        one = torch.ones_like(x[..., :1])
        y = torch.einsum("ns,nsof,nf->no", wide, rows, torch.cat([one, x], -1).flatten(0, -2).to(rows.dtype))
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"out_features={self.out_features}, degree={self.degree}, sparse={self.sparse}"
