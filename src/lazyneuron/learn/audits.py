"""What the theory says about a trained network, and whether that is anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.learn import cube
from lazyneuron.learn.certificates import Ladder, certificates
from lazyneuron.learn.instances.instance import Instance
from lazyneuron.learn.layer import Layer, of_network, of_scikit, of_torch
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.queries import Estimate, mean_estimate
from lazyneuron.learn.sparsity import SparsityReport, verify_sparsity
from lazyneuron.ops.boolean.array import Array

_LAW = "All of this is for inputs uniform on the cube (D5: independent ones); it says nothing about your data's law."
_RELATIVE = 0.1  # of the variance: the error for which a degree is stated


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerAudit:
    """One layer.

    Attributes:
        name: of the layer.
        n: its inputs.
        s: its neurons.
        norm: W of the rebalanced form (outer weights are the lengths of output directions).
        bias: B of that form.
        on_data: activity on the rows that it received, or None without data. No certificate: a sample is no support.
            Where the theorems do not apply it counts positive pre-activations.
        path_norm: ``R sum_j sqrt(p_j) |v_j|`` on these rows; a diagnostic, no bound follows from it.
        on_cube: the certificate ladder for inputs uniform on the cube.
        sensitivity: AS under uniform inputs, by queries, summed over outputs; its interval is asymptotic.
        variance: under uniform inputs, summed over outputs; an estimate.
        least_variance: the lower end of its asymptotic interval.
        certified: what AS is at most: the least of an exact ladder, or the upper confidence limit of an estimated C2;
            infinite where the theorems do not apply.
        degree: the degree at which the certified tail is a tenth of ``variance``; None when that is vacuous.
        vacuous: True when the theorems do not apply, or ``certified`` is not proved to say more than ``AS <= n Var``,
            which holds for every function.
        statements: the findings as sentences.
    """

    name: str
    n: int
    s: int
    norm: float
    bias: float
    on_data: SparsityReport | None
    path_norm: float | None
    on_cube: Ladder
    sensitivity: Estimate
    variance: float
    least_variance: float
    certified: float
    degree: int | None
    vacuous: bool
    statements: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The audits of all layers; ``str(report)`` is readable."""

    layers: tuple[LayerAudit, ...]
    seed: int

    def __str__(self) -> str:
        return "\n".join("\n".join([f"{a.name}:", *(f"  {s}" for s in a.statements)]) for a in self.layers)

    def rows(self) -> list[dict[str, Any]]:
        """One table row for each layer."""
        return [
            {
                "layer": a.name,
                "n": a.n,
                "neurons": a.s,
                "E K": None if a.on_data is None else round(a.on_data.mean_active, 1),
                "k_eff": None if a.on_data is None else round(a.on_data.effective, 1),
                "k_eff on cube": round(a.on_cube.sparsity.effective, 1),
                "W": f"{a.norm:.3g}",
                "AS on cube": f"{a.sensitivity.value:.3g}",
                "C2": f"{a.on_cube.c2:.3g}",
                "AS at most": f"{a.certified:.3g}",
                "C1": f"{a.on_cube.c1:.3g}",
                "n Var": f"{a.n * a.variance:.3g}",
                "vacuous": "yes" if a.vacuous else "no",
            }
            for a in self.layers
        ]

    def to_record(self) -> Record:
        """The table and the sentences as a record of kind ``"audit"``."""
        data = {"rows": self.rows(), "statements": {a.name: list(a.statements) for a in self.layers}}
        return Record(kind="audit", data=data, seed=self.seed)


def audit(
    model: Any,
    x: Any = None,
    *,
    blocks: Sequence[MLPBlock] | None = None,
    samples: int = 4000,
    seed: int = 0,
    delta: float = 0.05,
) -> AuditReport:
    """Report sparsity, certificates and what follows from them for every hidden layer of a model.

    Args:
        model: a :class:`SparseActivationNet`, an instance, a fitted scikit-learn ``MLPRegressor`` or
            ``MLPClassifier``, a fitted :class:`SparseReluRegressor`, or a torch module with MLP blocks.
        x: rows (m, n); for a torch model its batches. Optional.
        blocks: of a torch model; all by default.
        samples: rows of data kept for each layer, and random points of the cube.
        seed: of both.
        delta: failure probability of each interval.

    Returns:
        The report. Fourier statements are about inputs uniform on the cube (or independent ones, with the constants
        of D5), whatever the data are, and the report says so.

    Raises:
        DataError: the model is nothing that can be audited, or a block did not run on the data.
        NoBlocksError: a torch model has no MLP block.

    Source: ours, D1 to D3, not peer reviewed.
    """
    layers = _layers(model, x, blocks=blocks, samples=samples, seed=seed)
    return AuditReport(layers=tuple(_audit(a, samples=samples, seed=seed, delta=delta) for a in layers), seed=seed)


def _layers(model: Any, x: Any, *, blocks: Sequence[MLPBlock] | None, samples: int, seed: int) -> list[Layer]:
    if isinstance(model, Instance):
        return [of_network(model.net, x)]
    if isinstance(model, SparseActivationNet):
        return [of_network(model, x)]
    if isinstance(model, nn.Module):
        return of_torch(model, x, blocks=blocks, tokens=samples, seed=seed)
    if isinstance(getattr(model, "net_", None), SparseActivationNet):
        return [of_network(model.net_, x)]
    if hasattr(model, "coefs_") and hasattr(model, "intercepts_"):
        return of_scikit(model, x)
    raise DataError(
        f"A {type(model).__name__} cannot be audited; pass a SparseActivationNet, a fitted scikit-learn MLP or "
        "a torch module."
    )


def _audit(layer: Layer, *, samples: int, seed: int, delta: float) -> LayerAudit:
    net = layer.majorant
    norm, bias = net.norms()
    ladder = certificates(net, samples=samples, seed=seed, delta=delta)
    sensitivity, variance = _queries(layer, samples=samples, seed=seed, delta=delta)
    on_data = None if layer.rows is None else verify_sparsity(net, layer.rows)
    path_norm = None
    if on_data is not None and layer.rows is not None:
        radius = float(np.linalg.norm(layer.rows, axis=1).max())
        path_norm = radius * float(np.sqrt(on_data.active_share) @ np.linalg.norm(net.rebalance()[0], axis=1))
    certified = ladder.least if layer.misfit is None else math.inf
    vacuous = not certified < net.n * variance.low  # so that NaN, which compares as false, is vacuous too
    degree = None if vacuous else min(max(math.ceil(certified / (_RELATIVE * variance.value)) - 1, 0), net.n)
    found = LayerAudit(
        name=layer.name,
        n=net.n,
        s=net.s,
        norm=norm,
        bias=bias,
        on_data=on_data,
        path_norm=path_norm,
        on_cube=ladder,
        sensitivity=sensitivity,
        variance=variance.value,
        least_variance=variance.low,
        certified=certified,
        degree=degree,
        vacuous=vacuous,
        statements=(),
    )
    return dataclasses.replace(found, statements=tuple(_sentences(found, layer)))


def _queries(layer: Layer, *, samples: int, seed: int, delta: float) -> tuple[Estimate, Estimate]:
    """AS and variance of the layer itself under uniform inputs, summed over outputs."""
    n, generator = layer.majorant.n, np.random.default_rng(seed)
    x = cube.random_points(samples, n, seed=generator).astype(np.float64)
    flipped, rows = x.copy(), np.arange(samples)
    flipped[rows, generator.integers(0, n, samples)] *= -1
    at, after = _in_blocks(layer, x), _in_blocks(layer, flipped)
    values = n / 4 * ((at - after) ** 2).sum(axis=1)
    squares = ((at - at.mean(axis=0)) ** 2).sum(axis=1)
    return (
        mean_estimate(values, delta=delta, span=None, queries=2 * samples),
        mean_estimate(squares, delta=delta, span=None, queries=samples),
    )


def _in_blocks(layer: Layer, x: Array) -> Array:
    return np.concatenate([layer.function(x[b : b + 1024]) for b in range(0, len(x), 1024)])


def _sentences(a: LayerAudit, layer: Layer) -> list[str]:
    out = []
    if a.on_data is not None:
        seen, what = a.on_data, "neurons" if layer.misfit is None else "pre-activations above 0"
        out.append(
            f"On the data: E K = {seen.mean_active:.4g} of {a.s} {what}, effective k = {seen.effective:.4g}, at most "
            f"{seen.max_active} at once on {seen.points} rows (a sample bounds nothing outside itself)."
        )
    ladder, top = a.on_cube, a.on_cube.c2_limit
    kind = "exactly" if ladder.exact else "estimated"
    out.append(
        f"On the cube, {kind}: effective k = {ladder.sparsity.effective:.4g}; AS = {a.sensitivity.value:.4g} by "
        f"queries (asymptotic interval {a.sensitivity.low:.4g} to {a.sensitivity.high:.4g})."
    )
    limit = "" if top is None else f" (upper confidence limit, without any promise, {top.high:.4g})"
    promise = "" if ladder.promised else f"; C0, C1 and C3 take k = {ladder.k}, the most that was seen, for a promise"
    out.append(
        f"Certificates: C0 = {ladder.c0:.4g}, C1 = {ladder.c1:.4g}, C2 = {ladder.c2:.4g}{limit}, C3 = "
        f"{ladder.c3:.4g}{promise}."
    )
    if a.path_norm is not None:
        out.append(f"Activation-weighted path norm on the data: {a.path_norm:.4g} (a diagnostic; no bound follows).")
    if layer.misfit is not None:
        out.append(f"{layer.misfit} So nothing above is a certificate.")
        return out
    return [*out, _verdict(a), _LAW]


def _verdict(a: LayerAudit) -> str:
    what, most = "The least certificate" if a.on_cube.exact else "C2's limit", a.n * a.variance
    if a.vacuous:
        return (
            f"VACUOUS. {what} {a.certified:.4g} is not proved to lie below n Var, estimated as {most:.4g}, which "
            "bounds AS of every function."
        )
    chance = "" if a.on_cube.c2_limit is None else f", with probability {1 - a.on_cube.c2_limit.failure_probability:g}"
    if a.degree is not None and a.degree < a.n:
        return (
            f"So polynomials of degree {a.degree} (of {a.n}) come within a squared error of "
            f"{_RELATIVE * a.variance:.4g}, a tenth of the variance as estimated{chance}."
        )
    return (
        f"{what} {a.certified:.4g} is below n Var, estimated as {most:.4g}, yet certifies no degree below n = {a.n} "
        "for a tenth of the variance."
    )
