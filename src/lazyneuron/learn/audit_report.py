"""The report on a trained network: numbers of each hidden layer, and what they mean in sentences."""

from __future__ import annotations

import dataclasses
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.learn.queries import Estimate
from lazyneuron.learn.sensitivity import SensitivityBounds
from lazyneuron.learn.sparsity import SparsityReport

_LAW = "All of this is for inputs uniform on the cube (D5: independent ones); it says nothing about your data's law."
RELATIVE = 0.1  # of the variance: the error for which a degree is stated


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerAudit:
    """One layer.

    Attributes:
        name: of the layer.
        n: its inputs.
        s: its neurons.
        norm: W of the rebalanced form (outer weights are the lengths of output directions).
        bias: B of that form.
        on_data: activity on the rows that it received, or None without data. It proves nothing: a sample is no support.
            Where the theorems do not apply it counts positive pre-activations.
        path_norm: ``R sum_j sqrt(p_j) |v_j|`` on these rows; a diagnostic, no bound follows from it.
        on_cube: the sensitivity bounds for inputs uniform on the cube.
        sensitivity: AS under uniform inputs, by queries, summed over outputs; its interval is asymptotic.
        variance: under uniform inputs, summed over outputs; an estimate.
        least_variance: the lower end of its asymptotic interval.
        certified: what AS is at most: the least of exact bounds, or the upper confidence limit of an estimated C2;
            infinite where the theorems do not apply.
        degree: the degree at which the certified tail is a tenth of ``variance``; None when that is vacuous.
        vacuous: True when the theorems do not apply, or ``certified`` is not proved to say more than ``AS <= n Var``,
            which holds for every function.
        misfit: why the theorems do not speak about the layer, or None.
    """

    name: str
    n: int
    s: int
    norm: float
    bias: float
    on_data: SparsityReport | None
    path_norm: float | None
    on_cube: SensitivityBounds
    sensitivity: Estimate
    variance: float
    least_variance: float
    certified: float
    degree: int | None
    vacuous: bool
    misfit: str | None

    @property
    def statements(self) -> tuple[str, ...]:
        """The findings as sentences."""
        on_data = [] if self.on_data is None else [self._data_sentence(self.on_data)]
        verdict = [f"{self.misfit} So nothing above is proved."] if self.misfit else [self._verdict(), _LAW]
        return (*on_data, *self._bound_sentences(), *verdict)

    def _data_sentence(self, seen: SparsityReport) -> str:
        what = "neurons" if self.misfit is None else "pre-activations above 0"
        return (
            f"On the data: E K = {seen.mean_active:.4g} of {self.s} {what}, effective k = {seen.effective:.4g}, at "
            f"most {seen.max_active} at once on {seen.points} rows (a sample bounds nothing outside itself)."
        )

    def _bound_sentences(self) -> list[str]:
        bounds, top = self.on_cube, self.on_cube.c2_limit
        kind = "exactly" if bounds.exact else "estimated"
        limit = "" if top is None else f" (upper confidence limit, without any promise, {top.high:.4g})"
        promise = (
            "" if bounds.promised else f"; C0, C1 and C3 take k = {bounds.k}, the most that was seen, for a promise"
        )
        found = [
            f"On the cube, {kind}: effective k = {bounds.sparsity.effective:.4g}; AS = {self.sensitivity.value:.4g} by "
            f"queries (asymptotic interval {self.sensitivity.low:.4g} to {self.sensitivity.high:.4g}).",
            f"Sensitivity bounds: C0 = {bounds.c0:.4g}, C1 = {bounds.c1:.4g}, C2 = {bounds.c2:.4g}{limit}, C3 = "
            f"{bounds.c3:.4g}{promise}.",
        ]
        if self.path_norm is not None:
            found.append(
                f"Activation-weighted path norm on the data: {self.path_norm:.4g} (a diagnostic; no bound follows)."
            )
        return found

    def _verdict(self) -> str:
        what, most = "The least bound" if self.on_cube.exact else "C2's limit", self.n * self.variance
        top = self.on_cube.c2_limit
        if self.vacuous:
            return (
                f"VACUOUS. {what} {self.certified:.4g} is not proved to lie below n Var, estimated as {most:.4g}, "
                "which bounds AS of every function."
            )
        chance = "" if top is None else f", with probability {1 - top.failure_probability:g}"
        if self.degree is not None and self.degree < self.n:
            return (
                f"So polynomials of degree {self.degree} (of {self.n}) come within a squared error of "
                f"{RELATIVE * self.variance:.4g}, a tenth of the variance as estimated{chance}."
            )
        return (
            f"{what} {self.certified:.4g} is below n Var, estimated as {most:.4g}, yet proves no degree below "
            f"n = {self.n} for a tenth of the variance."
        )


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
