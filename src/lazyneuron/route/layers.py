"""Layers of which an input uses only the units that its router names, and their composition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.arguments import check_choice, check_switch, described
from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.core.numbers import whole
from lazyneuron.route.polynomials import degree_of, monomials, polynomial_terms
from lazyneuron.route.router import Route, Router

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "one": torch.ones_like,
}


class DSM(nn.Module):
    """``g(x) = A (mask(x) * phi(x))`` with ``phi_i(x) = activation(b_i . x + c_i)`` and at most s units a mask.

    Only the units that the router names are computed.

    Args:
        router: the mask; its width is t and its active units are s.
        top: (outputs, t), the matrix A.
        bottom: (t, features), the rows b_i; None only with the activation ``"one"``, for which phi is 1 everywhere.
        bias: (t,) the c_i, or None.
        activation: ``identity``, ``relu``, ``gelu``, ``tanh`` or ``one``.
        output_bias: (outputs,) or None.
        train_bottom: make bottom and bias parameters; the published experiments keep them frozen.

    Raises:
        ConfigError: an unknown activation, or a missing bottom.
        ShapeError: sizes that do not fit.

    Cost: FLOPs of one input: the router's, and ``2 s (features + outputs)``; nothing grows with t but the router.

    Source: Baykal et al. (2022), section 2.
    """

    def __init__(
        self,
        router: Router,
        top: Tensor,
        *,
        bottom: Tensor | None = None,
        bias: Tensor | None = None,
        activation: str = "relu",
        output_bias: Tensor | None = None,
        train_bottom: bool = False,
    ) -> None:
        super().__init__()
        check_choice("The activation", activation, ACTIVATIONS)
        if bottom is None and activation != "one":
            raise ConfigError(f"The activation {activation!r} needs the rows of `bottom`; only 'one' goes without.")
        for name, tensor in (("top", top.t()), ("bottom", bottom), ("bias", bias)):
            if tensor is not None and tensor.shape[0] != router.width:
                raise ShapeError(f"`{name}` has {tensor.shape[0]} units, but the router has {router.width}.")
        self.router, self.activation = router, activation
        self.top = nn.Parameter(top.clone())
        self.output_bias = None if output_bias is None else nn.Parameter(output_bias.clone())
        for name, tensor in (("bottom", bottom), ("bias", bias)):
            if tensor is not None and train_bottom:
                self.register_parameter(name, nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(name, tensor)
        self.bottom: Tensor | None
        self.bias: Tensor | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(d, s, t): inputs, active units, units."""
        return self.router.features, self.router.active, self.router.width

    def features_of(self, x: Tensor, indices: Tensor) -> Tensor:
        """phi at the named units only: (..., s)."""
        if self.bottom is None:
            return torch.ones(indices.shape, dtype=x.dtype, device=x.device)
        z = torch.einsum("...sd,...d->...s", self.bottom[indices], x)
        return ACTIVATIONS[self.activation](z if self.bias is None else z + self.bias[indices])

    def forward(self, x: Tensor, route: Route | None = None) -> Tensor:
        """The output.

        Args:
            x: (..., features).
            route: units chosen elsewhere, as by globally shared gates; default the own router's.

        Returns:
            (..., outputs).
        """
        indices, weights = self.router(x) if route is None else route
        hidden = weights * self.features_of(x, indices)
        y = torch.einsum("...s,...so->...o", hidden, F.embedding(indices, self.top.t()))
        return y if self.output_bias is None else y + self.output_bias

    def dense_forward(self, x: Tensor) -> Tensor:
        """The definition, unit by unit: ``A (mask(x) * phi(x))`` with all t units computed and then masked."""
        if self.bottom is None:
            phi = torch.ones(*x.shape[:-1], self.router.width, dtype=x.dtype)
        else:
            phi = ACTIVATIONS[self.activation](F.linear(x, self.bottom, self.bias))
        return F.linear(self.router.mask(x) * phi, self.top, self.output_bias)

    def flops(self) -> int:
        """FLOPs of the chosen units for one input, without the router; a multiply-add is two."""
        d, s, _ = self.sizes
        return 2 * s * ((0 if self.bottom is None else d) + self.top.shape[0])


class SparseStack(nn.Module):
    """Sparse models one after another.

    Args:
        layers: each takes what the one before gives.
        gates: when given, all layers are masked by it, and it reads the network's input: globally shared gates.
        activation: between layers.

    Raises:
        ConfigError: no layer, or layers and gates whose sizes do not fit.

    Source: composition is in Baykal et al. (2022), section 2.
    """

    def __init__(self, layers: Sequence[DSM], *, gates: Router | None = None, activation: str = "identity") -> None:
        super().__init__()
        if not layers:
            raise ConfigError("A stack has at least one layer, got none.")
        for first, second in itertools.pairwise(layers):
            taken = second.bottom.shape[1] if second.bottom is not None else second.router.features
            if first.top.shape[0] != taken:
                raise ConfigError(f"A layer gives {first.top.shape[0]} outputs, but the next takes {taken}.")
        if gates is not None and any(layer.router.width != gates.width for layer in layers):
            raise ConfigError(f"Shared gates of width {gates.width} need layers of that width.")
        self.layers, self.gates, self.activation = nn.ModuleList(layers), gates, activation

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's output."""
        route = None if self.gates is None else self.gates(x)
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else ACTIVATIONS[self.activation](x), route)
        return x


class SparseLayer(nn.Module):
    """``sum over active units i of weight_i p_i(x)`` with a polynomial p_i for each unit: LSH(d, s, m, Delta) to train.

    Args:
        router: maps inputs to units.
        out_features: length of an output.
        degree: of the polynomials, 0 to 1000: 0 for a constant a unit, 1 for an affine function of the input.
        sparse: give the table sparse gradients, so that an optimiser that understands them (``torch.optim.SparseAdam``,
            ``torch.optim.SGD``, ``torch.optim.Adagrad``) reads and writes only rows that were used.

    Attributes:
        table: (units, out_features * C(features + degree, degree)), starting at 0; an output's coefficients stand
            together, in the order of :func:`lazyneuron.route.monomials`.

    Raises:
        ConfigError: no router, no such degree, no output, or a table that this machine has no memory for.

    Cost: FLOPs of an input: the router's and ``2 active out_features C(features + degree, degree)``; the same for any
        number of units.

    Source: Baykal et al. (2022), section 3.

    Example:
        >>> from lazyneuron.route import HyperplaneLSH
        >>> layer = SparseLayer(HyperplaneLSH(8, 10, tables=4), 3)
        >>> layer(torch.randn(5, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(self, router: Router, out_features: int, *, degree: int = 0, sparse: bool = True) -> None:
        super().__init__()
        if not isinstance(router, Router):
            raise ConfigError(f"A layer is routed by a Router, such as HyperplaneLSH makes, got {described(router)}.")
        check_switch("`sparse`", sparse)
        self.router, self.degree, self.sparse = router, degree_of(degree), sparse
        self.out_features = whole(out_features, "The number of outputs", least=1)
        self.terms = polynomial_terms(features=router.features, degree=self.degree)
        self.table = nn.Parameter(_zeros(router.width, self.out_features * self.terms))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) to (..., out_features)."""
        indices, weights = self.router(x)
        flat = indices.reshape(-1, self.router.active)
        wide = weights.reshape(-1, self.router.active).to(self.table.dtype)
        if not self.degree:
            y = F.embedding_bag(flat, self.table, mode="sum", per_sample_weights=wide, sparse=self.sparse)
            return y.reshape(*x.shape[:-1], self.out_features)
        rows = F.embedding(flat, self.table, sparse=self.sparse)
        rows = rows.reshape(*flat.shape, self.out_features, self.terms)
        products = monomials(x.reshape(-1, self.router.features), self.degree).to(rows.dtype)
        y = torch.einsum("ns,nsof,nf->no", wide, rows, products)
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"out_features={self.out_features}, degree={self.degree}, sparse={self.sparse}"


def _zeros(units: int, columns: int) -> Tensor:
    """A table's first values; allocators and shapes refuse a size each in its own way."""
    try:
        return torch.zeros(units, columns)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ConfigError(
            f"A table of {units} units with about 2^{columns.bit_length()} coefficients each does not fit into memory; "
            "take a lower degree or fewer units."
        ) from error
