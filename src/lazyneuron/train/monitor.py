"""How densely a model fires in the very forwards that train it, looked at now and then."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation, DeclaresActivation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import blocks_of
from lazyneuron.blocks.recorder import recording
from lazyneuron.core.batch import padding_mask
from lazyneuron.core.errors import ConfigError
from lazyneuron.measure.masks import BatchMask
from lazyneuron.measure.watch import BlockWatch
from lazyneuron.train.packing.overrides import tally_of


class ScalarWriter(Protocol):
    """What takes the numbers: ``torch.utils.tensorboard.SummaryWriter``, or anything with its ``add_scalar``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> Any:
        """Note one number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What one training step was seen to do.

    Attributes:
        step: the step.
        density: for each block that ran, the share of hidden activations that were not zero.
        derivative_sparsity: for each block that ran, the share of (token, neuron) pairs whose derivative is zero.
        kept_bytes: for each block that :func:`pack_activations_` packed, what was kept of its hidden layer.
        dense_bytes: for the same blocks, what their own code would have kept of it.
    """

    step: int
    density: Mapping[str, float]
    derivative_sparsity: Mapping[str, float]
    kept_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    dense_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def mean_density(self) -> float:
        """Mean over the blocks."""
        return sum(self.density.values()) / len(self.density)

    @property
    def saved_bytes(self) -> int:
        """Bytes that packing saved in all blocks together."""
        return sum(self.dense_bytes.values()) - sum(self.kept_bytes.values())

    def scalars(self) -> dict[str, float]:
        """The numbers by tag: ``density/BLOCK``, ``derivative_sparsity/BLOCK``, and the mean of each.

        Where blocks are packed also ``kept_share/BLOCK`` and its mean, and ``saved_bytes`` of all of them.
        """
        found: dict[str, float] = {}
        for kind, values in (("density", self.density), ("derivative_sparsity", self.derivative_sparsity)):
            found |= {f"{kind}/{name}": value for name, value in values.items()}
            found[f"{kind}/mean"] = sum(values.values()) / len(values)
        if sum(self.dense_bytes.values()):
            shares = {name: self.kept_bytes[name] / dense for name, dense in self.dense_bytes.items() if dense}
            found |= {f"kept_share/{name}": share for name, share in shares.items()}
            found["kept_share/mean"] = sum(shares.values()) / len(shares)
            found["saved_bytes"] = self.saved_bytes
        return found


class SparsityMonitor:
    """Looks at the hidden activations of every ``every``-th step's own forward, and never at any other.

    No forward is added, so weights, gradients, batches, mode and random numbers are what they would be without it; a
    test compares trainings bitwise. Between the steps that are looked at there is no hook on any block. Where
    gradient checkpointing runs a forward a second time, that one is not counted.

    Make it before the model is wrapped (DDP, FSDP2, ``torch.compile``), since blocks are found in the bare model.

    Args:
        model: the model.
        every: look at steps that are multiples of this.
        writer: told the numbers; None keeps them in :attr:`readings` only.
        blocks: the blocks to look at, as ``find_blocks`` gives them; None finds all.
        mask: which tokens of a batch are real: key of the forward's argument that is nonzero there.

    Attributes:
        readings: one for each step looked at, in order.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: ``every`` is no whole number >= 1.

    Cost: on a step that is looked at, what :func:`lazyneuron.measure` costs and one more comparison over the
        pre-activations; otherwise nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        writer: ScalarWriter | None = None,
        blocks: Sequence[MLPBlock] | None = None,
        mask: str = "attention_mask",
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"`every` is a number of steps, a whole number >= 1, got {every!r}.")
        self.model, self.every, self.writer, self.mask = model, every, writer, mask
        self.blocks = tuple(blocks_of(model, blocks))
        self.readings: list[Reading] = []
        self._open: contextlib.ExitStack | None = None
        self._seen: list[_Seen] = []

    @contextlib.contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Look at the forwards in the body if it is this step's turn.

        Args:
            step: number of this step, from 1.
        """
        self.start(step)
        try:
            yield
        except BaseException:
            self.drop()
            raise
        self.stop(step)

    def start(self, step: int) -> None:
        """Begin a step, for loops that one does not write oneself; :meth:`stop` ends it."""
        self.drop()
        if step % self.every:
            return
        self._seen = [_Seen(self.model, block) for block in self.blocks]
        self._open = contextlib.ExitStack()
        before = self.model.register_forward_pre_hook(self._before, with_kwargs=True)
        self._open.callback(before.remove)
        self._open.callback(self.model.register_forward_hook(self._after, always_call=True).remove)
        for seen in self._seen:
            self._open.enter_context(seen.watch.watching())
            self._open.enter_context(recording([seen.block], pre_activations=seen.count_slopes))

    def stop(self, step: int) -> Reading | None:
        """End a step: note what was seen and take the hooks off.

        Returns:
            The reading, or None if it was not this step's turn or no block ran.
        """
        if self._open is None:
            return None
        seen = [s for s in self._seen if s.ran]
        self.drop()
        if not seen:
            return None
        reading = Reading(
            step=step,
            density={s.block.name: s.density for s in seen},
            derivative_sparsity={s.block.name: 1 - s.derivative_density for s in seen},
            kept_bytes={s.block.name: s.kept_bytes for s in seen if s.dense_bytes},
            dense_bytes={s.block.name: s.dense_bytes for s in seen if s.dense_bytes},
        )
        self.readings.append(reading)
        if self.writer is not None:
            for tag, value in reading.scalars().items():
                self.writer.add_scalar(tag, value, step)
        return reading

    def drop(self) -> None:
        """Take the hooks off and forget the step that was begun, if any."""
        if self._open is not None:
            self._open.close()
        self._open, self._seen = None, []

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        batch = kwargs if self.mask in kwargs else args[0] if args and isinstance(args[0], Mapping) else {}
        mask = BatchMask(padding_mask({"attention_mask": batch.get(self.mask)}))
        for seen in self._seen:
            seen.begin(mask)

    def _after(self, *_: Any) -> None:
        for seen in self._seen:
            seen.end()


class _Seen:
    """One block's counts of what fires and of where its slope is not zero, in forwards of the whole model."""

    def __init__(self, model: nn.Module, block: MLPBlock) -> None:
        self.block = block
        self.watch = BlockWatch(model, block)
        self._flat = _current(block).flat
        self._sloped = self._pairs = torch.zeros((), dtype=torch.int64)
        self._tally = tally_of(block)
        self._before = (0, 0)
        self.kept_bytes = self.dense_bytes = 0

    def begin(self, mask: BatchMask) -> None:
        self.watch.mask = mask
        self.watch.on = True
        if self._tally is not None:
            self._before = self._tally.kept_bytes, self._tally.tokens

    def end(self) -> None:
        if self.watch.on and self._tally is not None:
            self.kept_bytes += self._tally.kept_bytes - self._before[0]
            self.dense_bytes += (self._tally.tokens - self._before[1]) * self._tally.dense_bytes
        self.watch.on = False

    def count_slopes(self, _: MLPBlock, p: Tensor) -> None:
        if not self.watch.on:
            return
        real = self.watch.mask.fit(tuple(p.shape[:-1]), p.device)[0].real
        sloped = (~self._flat.contains(p)).reshape(len(real), -1).sum(-1)
        self._sloped = self._sloped.to(p.device) + (sloped * real).sum()
        self._pairs = self._pairs.to(p.device) + real.sum() * p.shape[-1]

    @property
    def ran(self) -> bool:
        return self.watch.tally is not None and int(self._pairs) > 0

    @property
    def density(self) -> float:
        assert self.watch.tally is not None
        totals = self.watch.tally.totals()
        return int(totals.fired.sum()) / (totals.tokens * self.block.d_hidden)

    @property
    def derivative_density(self) -> float:
        return int(self._sloped) / int(self._pairs)


def _current(block: MLPBlock) -> Activation:
    """The activation as it is now: a learnt shift moves after the block was found."""
    module = None if block.site is None else block.site.function
    return module.activation_spec() if isinstance(module, DeclaresActivation) else block.activation
