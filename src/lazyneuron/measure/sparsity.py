"""What a measurement returns: how sparsely each block of a model fires."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lazyneuron.blocks.find.rejected import Rejected
from lazyneuron.core.record import Record
from lazyneuron.measure.cost import StepTime, Traffic, traffic
from lazyneuron.measure.forecast import Forecast

HISTOGRAM_BINS = 20
_TURNED = frozenset({"firing_counts", "unions", "predicted", "forecast"})  # into other things when data are written


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnionDensity:
    """Neurons that fire on at least one of several consecutive tokens.

    Attributes:
        tokens: length of a window. Windows follow each other without overlap in the stream of real tokens, in the order
            in which the model saw them, also across the ends of sequences; incomplete ones are left out.
        density: mean over the windows of the share of neurons that fire in it; None without a complete window.
        windows: how many windows that is.
    """

    tokens: int
    density: float | None
    windows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedGain:
    """The time that a cost model predicts for one block and token count, beside dense."""

    tokens: int
    step: StepTime

    @property
    def speedup(self) -> float:
        """Dense time over best time."""
        return self.step.dense_us / self.step.best_us


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSparsity:
    """How sparsely one block fires.

    Attributes:
        name: dotted name of the block.
        activation: kind of its activation function.
        gated: whether it has a gate; then ``s(gate)`` decides what fires.
        refusal: why its execution cannot be replaced, or None when it can.
        d_in, d_hidden, d_out: widths of input, hidden activation and output.
        itemsize: bytes of one weight.
        calls: how often it ran.
        tokens: real tokens that it saw.
        density: share of hidden activations that are not zero, in [0, 1]; None when it never ran.
        density_if_relu: share of pre-activations above 0, the density it would have under ReLU; None if unseen.
        firing_counts: int64 of shape (d_hidden,): tokens on which each neuron fired.
        unions: union densities, one for each window length.
        overlap: mean Jaccard overlap of the active sets of neighbouring tokens in a sequence (1 when both are silent);
            None without neighbours.
        overlap_pairs: how many neighbours that is.
        padding: "excluded"; or "no mask": every token counted as real; or "mask did not fit": a mask was there but has
            not this block's token axes, so every token counted as real.
        notes: sentences about what limits these figures.
        predicted: predicted times on this machine, when a cost model was passed.
        forecast: what would fire by the moments of the inputs, when it was asked for.
    """

    name: str
    activation: str
    gated: bool
    refusal: str | None
    d_in: int
    d_hidden: int
    d_out: int
    itemsize: int
    calls: int
    tokens: int
    density: float | None
    density_if_relu: float | None
    firing_counts: Tensor = dataclasses.field(repr=False, compare=False)
    unions: tuple[UnionDensity, ...]
    overlap: float | None
    overlap_pairs: int
    padding: str
    notes: tuple[str, ...] = ()
    predicted: tuple[PredictedGain, ...] = ()
    forecast: Forecast | None = None

    @property
    def sparsity(self) -> float | None:
        """1 - density."""
        return None if self.density is None else 1 - self.density

    @property
    def firing_rates(self) -> Tensor:
        """Share of tokens on which each neuron fires; float64 of shape (d_hidden,), NaN when the block never ran."""
        return self.firing_counts.double() / (self.tokens or float("nan"))

    @property
    def dead(self) -> tuple[int, ...]:
        """Neurons that fired on no token."""
        return self._where(0)

    @property
    def always_on(self) -> tuple[int, ...]:
        """Neurons that fired on every token."""
        return self._where(self.tokens)

    def _where(self, count: int) -> tuple[int, ...]:
        if not self.tokens:
            return ()
        return tuple(torch.nonzero(self.firing_counts == count)[:, 0].tolist())

    def union_density(self, tokens: int) -> float | None:
        """The union density of ``tokens`` consecutive tokens, or None when it was not measured."""
        return next((u.density for u in self.unions if u.tokens == tokens), None)

    @property
    def traffic(self) -> tuple[Traffic, ...]:
        """Bytes and FLOPs, dense and at the measured densities, for each measured window length."""
        if self.density is None:
            return ()
        return tuple(
            traffic(
                self.d_in,
                self.d_hidden,
                d_out=self.d_out,
                itemsize=self.itemsize,
                gated=self.gated,
                density=self.density,
                union_density=union.density,
                tokens=union.tokens,
            )
            for union in self.unions
            if union.density is not None
        )

    def to_data(self, *, firing_counts: bool = False) -> dict[str, Any]:
        """JSON-able facts; with ``firing_counts`` the count of every neuron, else only a histogram of the rates."""
        plain = (f.name for f in dataclasses.fields(self) if f.name not in _TURNED)
        data: dict[str, Any] = {name: getattr(self, name) for name in plain}
        rates = self.firing_rates.float() if self.tokens else torch.zeros(0)
        data |= {
            "notes": list(self.notes),
            "forecast": None if self.forecast is None else self.forecast.to_data(),
            "dead": len(self.dead),
            "always_on": len(self.always_on),
            "rate_histogram": torch.histc(rates, HISTOGRAM_BINS, 0.0, 1.0).int().tolist(),
            "unions": [dataclasses.asdict(u) for u in self.unions],
            "traffic": [
                {**dataclasses.asdict(t), "speedup_ceiling_from_bytes": t.speedup_ceiling_from_bytes}
                for t in self.traffic
            ],
            "predicted": [
                {"tokens": p.tokens, **dataclasses.asdict(p.step), "speedup": p.speedup} for p in self.predicted
            ],
        }
        if firing_counts:
            data["firing_counts"] = self.firing_counts.tolist()
        return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """How sparsely the blocks of a model fire on some batches.

    Attributes:
        blocks: one entry for each MLP block, in the model's order.
        batches: how many batches were run.
        threshold: activations of at most this magnitude counted as zero; None when only exact zeros did.
        training: whether the model was in training mode.
        mlp_time_share: share of a forward's time spent in MLP blocks, when it was measured.
        notes: sentences about the whole measurement.
        rejected: what looks like a block and could not be measured, with the reasons.
    """

    blocks: tuple[BlockSparsity, ...]
    batches: int
    threshold: float | None
    training: bool
    mlp_time_share: float | None = None
    notes: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def density(self) -> float:
        """Share of all hidden activations that are not zero, over the blocks that ran."""
        seen = [b for b in self.blocks if b.tokens]
        return sum(int(b.firing_counts.sum()) for b in seen) / sum(b.tokens * b.d_hidden for b in seen)

    def to_data(self, *, firing_counts: bool = False) -> dict[str, Any]:
        """JSON-able facts."""
        return {
            "batches": self.batches,
            "threshold": self.threshold,
            "training": self.training,
            "density": self.density,
            "mlp_time_share": self.mlp_time_share,
            "notes": list(self.notes),
            "blocks": [b.to_data(firing_counts=firing_counts) for b in self.blocks],
            "rejected": [dataclasses.asdict(r) for r in self.rejected],
        }

    def to_record(self, *, settings: Mapping[str, Any] | None = None, firing_counts: bool = False) -> Record:
        """This report with its provenance.

        Args:
            settings: JSON-able facts about what was measured (model, data) to keep beside it.
            firing_counts: keep the count of every neuron, not only a histogram of the rates.
        """
        data = {**self.to_data(firing_counts=firing_counts), "settings": dict(settings or {})}
        return Record(kind="measure", data=data, seed=None)

    def __str__(self) -> str:
        head: tuple[str, ...] = ("block", "activation", "neurons", "tokens", "density", "if ReLU", "dead", "always on")
        head += ("union 4", "union 16", "union 64", "overlap", "byte ceiling")
        lines = [head] + [_row(b) for b in self.blocks]
        width = [max(len(line[k]) for line in lines) for k in range(len(head))]
        table = [
            "  ".join(c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(line, width, strict=True)))
            for line in lines
        ]
        rule = f"zero means at most {self.threshold:g} in magnitude" if self.threshold is not None else "exact zeros"
        table.append(f"density {self.density:.4f} over all blocks; {self.batches} batches, {rule}")
        if self.mlp_time_share is not None:
            table.append(f"MLP share of a forward's time {self.mlp_time_share:.2f}")
        table += [
            *(b.forecast.against(b.name, b.density) for b in self.blocks if b.forecast is not None),
            *self.notes,
            *(f"{b.name}: {note}" for b in self.blocks for note in b.notes),
            *map(str, self.rejected),
        ]
        return "\n".join(line.rstrip() for line in table)


def _row(b: BlockSparsity) -> tuple[str, ...]:
    def share(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    unions = (share(b.union_density(t)) for t in (4, 16, 64))
    ceiling = f"{b.traffic[0].speedup_ceiling_from_bytes:.2f}x" if b.traffic else "-"
    counts = (str(b.d_hidden), str(b.tokens), share(b.density, 4), share(b.density_if_relu, 4))
    ends = (str(len(b.dead)), str(len(b.always_on)))
    return (b.name, b.activation, *counts, *ends, *unions, share(b.overlap), ceiling)
