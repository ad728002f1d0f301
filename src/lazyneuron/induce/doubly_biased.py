"""The recipe that makes training itself drive neurons silent: JSReLU, a zeroth bias and a floor under the norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lazyneuron.core.arguments import check_patterns
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.induce.jsrelu import JSReLU
from lazyneuron.induce.norm_floor import NormBias
from lazyneuron.induce.zeroth_bias import Position


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoublyBiased:
    """What :func:`lazyneuron.sparsify_` gives each MLP block; train afterwards, with ``project_`` at each step.

    The three components can be switched off one by one. In a gated block JSReLU becomes the gate's activation, and the
    zeroth bias on the input side stands before gate and up.

    Attributes:
        blocks: glob patterns of block names.
        jsrelu: install :class:`lazyneuron.induce.JSReLU` in place of the activation.
        cap: its cap.
        zeroth_bias: add a :class:`lazyneuron.induce.ZerothBias`.
        bound: its bound.
        position: the side that it is on.
        per_position: whether each position has its own row.
        max_len: number of positions; None reads the model's config, else takes 512.
        norm_floor: least scale of the norm in front, by :class:`lazyneuron.induce.NormFloor`; None for no floor.
        norm_bias: what becomes of that norm's bias; unused without a floor.
        mixing_steps: steps over which JSReLU grows out of ReLU; 0 for at once.
        uplift_steps: steps over which the floor rises; 0 for at once.
        noise_rho: strength of the noise on the outputs of up, gate and down in training mode, as in
            :class:`lazyneuron.induce.TokenWeightNoise`; drawn from torch's own generator. None for no noise.

    Source: Peng et al., 2023. The gated form is ours.
    """

    blocks: tuple[str, ...] = ("*",)
    jsrelu: bool = True
    cap: float | None = None
    zeroth_bias: bool = True
    bound: float | None = 0.1
    position: Position = "input"
    per_position: bool = True
    max_len: int | None = None
    norm_floor: float | None = 1.0
    norm_bias: NormBias = "drop"
    mixing_steps: int = 0
    uplift_steps: int = 0
    noise_rho: float | None = None

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        if not (self.jsrelu or self.zeroth_bias or self.norm_floor is not None or self.noise_rho is not None):
            raise ConfigError("Every component of DoublyBiased is off; switch on jsrelu, zeroth_bias or norm_floor.")
        if self.position not in ("input", "output") or self.norm_bias not in ("drop", "freeze", "keep"):
            raise ConfigError(
                "`position` is 'input' or 'output' and `norm_bias` is 'drop', 'freeze' or 'keep', got "
                f"{self.position!r} and {self.norm_bias!r}."
            )
        if not (self.bound is None or self.bound >= 0) or not (self.max_len is None or self.max_len >= 1):
            raise ConfigError(f"`bound` is >= 0 or None and `max_len` >= 1 or None, got {self.bound}, {self.max_len}.")
        if self.norm_floor is not None and not 0 < self.norm_floor < float("inf"):
            raise ConfigError(f"`norm_floor` is a finite number > 0 or None, got {self.norm_floor}.")
        if min(self.mixing_steps, self.uplift_steps) < 0:
            raise ConfigError(f"Ramps take >= 0 steps, got {self.mixing_steps} and {self.uplift_steps}.")
        if (self.mixing_steps and not self.jsrelu) or (self.uplift_steps and self.norm_floor is None):
            raise ConfigError("A ramp is configured for a component that is off; set its steps to 0.")
        if self.noise_rho is not None and not 0 < self.noise_rho < float("inf"):
            raise ConfigError(f"`noise_rho` is a finite number > 0 or None, got {self.noise_rho}.")
        JSReLU(cap=self.cap)

    @staticmethod
    def for_finetuning(steps: int = 3000) -> DoublyBiased:
        """The recipe for a trained model: the norm's bias stays, frozen, and both ramps take ``steps`` steps."""
        return DoublyBiased(norm_bias="freeze", mixing_steps=steps, uplift_steps=steps)

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {"config": "DoublyBiased", **dataclasses.asdict(self), "blocks": list(self.blocks)}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> DoublyBiased:
        """The config that :meth:`to_data` wrote.

        Raises:
            CheckpointError: the data are not such a config.
        """
        try:
            arguments = dict(data)
            if arguments.pop("config") != "DoublyBiased":
                raise ValueError(f"its config is {data['config']!r}")
            return DoublyBiased(**{**arguments, "blocks": tuple(arguments["blocks"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"This is not a DoublyBiased config ({error}); pass what DoublyBiased.to_data wrote."
            ) from error
