"""What the experiments on sparsely activated classes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import Experiment, Finding, Request, published
from lazyneuron.learn import average_sensitivity, spectrum, weight_by_degree
from lazyneuron.learn.instances import Instance
from lazyneuron.ops.array import Array

SOURCE = (
    "Awasthi, Dikkala, Kamath, Meka (2024), arXiv 2406.17989, which has no experiments; the design and the bounds "
    "D1 to D10 are ours"
)
DIFFERS = (
    "The paper contains no experiment, table or figure, so there is nothing to compare with; the bounds named D are "
    "ours, not peer reviewed, and hold for inputs uniform on the cube unless said otherwise."
)
ABSOLUTE = (
    "The bounds are absolute, at a fixed norm of each neuron: relative to the variance a sparser network can be harder."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """An instance's exact Fourier facts.

    Attributes:
        weights: by degree.
        sensitivity: AS.
        scale: ``4 k^2 W^2``.
        variance: of the function.
    """

    weights: Array
    sensitivity: float
    scale: float
    variance: float

    @property
    def tails(self) -> Array:
        """``tail(d)`` for d = 0..n - 1."""
        return np.asarray(self.weights[::-1].cumsum()[::-1][1:])


def facts_of(instance: Instance, table: Array | None = None, *, k: int | None = None) -> Facts:
    """The facts, from all values on the cube."""
    weights = weight_by_degree(spectrum(instance.net.table() if table is None else table))
    active = instance.max_active if k is None else k
    assert active is not None
    scale = 4 * active**2 * instance.net.norms()[0] ** 2
    return Facts(
        weights=weights, sensitivity=average_sensitivity(weights), scale=scale, variance=float(weights[1:].sum())
    )


def curve(label: str, x: Iterable[Any], y: Iterable[Any]) -> dict[str, Any]:
    """One line of a figure."""
    return {"label": label, "x": [float(v) for v in x], "y": [float(v) for v in y]}


def experiment_of(number: int, title: str, run: Callable[[Request], Finding]) -> Experiment:
    """The entry of the catalogue."""
    name = f"awasthi-f{number}"

    def bullet(record: Record) -> str:
        return f"- `{name}`, {title.partition(': ')[2]}. {record.data['finding']}\n"

    return published(
        name=name, title=title, source=SOURCE, differs=DIFFERS, run=run, sections={"docs/learn.md": bullet}
    )
