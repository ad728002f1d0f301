"""The recipe that makes training itself drive neurons silent: JSReLU, a zeroth bias and a floor under the norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import find_skip
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.arguments import check_choice, check_patterns, check_switch
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real, whole
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.activations.jsrelu import JSReLU
from lazyneuron.induce.modules.flattened import takes_flattened
from lazyneuron.induce.modules.installed import (
    CHILD,
    INSTALLED,
    Installed,
    add_after_,
    add_bias_,
    add_hook_,
    length_of,
    refuse_cache,
)
from lazyneuron.induce.modules.norm_floor import NormBias, NormFloor, scale_offset
from lazyneuron.induce.modules.skip_noise import add_skip_noise_
from lazyneuron.induce.modules.token_noise import NoiseHook
from lazyneuron.induce.modules.zeroth_bias import Position, ZerothBias
from lazyneuron.induce.recipe import Recipe, register_recipe
from lazyneuron.induce.recipe_data import spelled


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class DoublyBiased(Recipe):
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
        noise_skip: add noise of deviation ``noise_rho / (10 sqrt(d)) ||x_t||`` to the skip connection around each block
            too, as on weights that are the identity: of a pre-norm block on the norm's input, of a post-norm block on
            its output. Blocks that share a skip connection, as with parallel attention, are skipped.

    Raises:
        ConfigError: a field of the wrong kind or out of range, or fields that make no sense together.

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
    noise_skip: bool = False

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        for name in ("jsrelu", "zeroth_bias", "per_position", "noise_skip"):
            check_switch(f"`{name}`", getattr(self, name))
        check_choice("`position`", self.position, ("input", "output"))
        check_choice("`norm_bias`", self.norm_bias, ("drop", "freeze", "keep"))
        if self.bound is not None:
            real(self.bound, "`bound`", least=0)
        if self.max_len is not None:
            whole(self.max_len, "`max_len`", least=1)
        for name in ("norm_floor", "noise_rho"):
            if getattr(self, name) is not None:
                real(getattr(self, name), f"`{name}`", above=0)
        for name in ("mixing_steps", "uplift_steps"):
            whole(getattr(self, name), f"`{name}`", least=0)
        JSReLU(cap=self.cap)
        if not (self.jsrelu or self.zeroth_bias or self.norm_floor is not None or self.noise_rho is not None):
            raise ConfigError("Every component of DoublyBiased is off; switch on jsrelu, zeroth_bias or norm_floor.")
        if (self.mixing_steps and not self.jsrelu) or (self.uplift_steps and self.norm_floor is None):
            raise ConfigError("A ramp is configured for a component that is off; set its steps to 0.")
        if self.noise_skip and self.noise_rho is None:
            raise ConfigError(
                "`noise_skip` puts the noise of `noise_rho` on skip connections; give noise_rho a number."
            )

    @staticmethod
    def for_finetuning(steps: int = 3000) -> DoublyBiased:
        """The recipe for a trained model: the norm's bias stays, frozen, and both ramps take ``steps`` steps.

        Raises:
            ConfigError: ``steps`` is no whole number >= 0.
        """
        steps = whole(steps, "`steps`", least=0)
        return DoublyBiased(norm_bias="freeze", mixing_steps=steps, uplift_steps=steps)

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be changed, or None."""
        if any(entry.block == block.name for entry in model.__dict__.get(INSTALLED, ())):
            return "It is doubly biased already; restore that change first."
        if self.jsrelu and block.site is None:
            return f"Its activation ({block.activation.kind}) is written into a forward and cannot be replaced."
        if self.noise_skip and find_skip(model, block) is None:
            return "No skip connection was found that adds this block alone; switch noise_skip off."
        if not self.zeroth_bias and self.norm_floor is None:
            return None
        if block.norm is None:
            return "No norm with scales was found in front of it; switch zeroth_bias and norm_floor off."
        sharing = [other.name for other in blocks if other.norm == block.norm and other is not block]
        if sharing:
            return f"Its norm {block.norm} also feeds {sharing[0]}; switch zeroth_bias and norm_floor off."
        return _misfit_of_norm(block.norm, model.get_submodule(block.norm)) or (
            _misfit_of_positions(model, block) if self.zeroth_bias and self.per_position else None
        )

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        rows = f"{length_of(model, self.max_len)} positions" if self.per_position else "all positions alike"
        parts = [
            *([f"{block.activation.kind} becomes JSReLU"] if self.jsrelu else []),
            *([f"a zeroth bias for {rows} is added on the {self.position} side"] if self.zeroth_bias else []),
            *([f"the scales of {block.norm} get the floor {self.norm_floor}"] if self.norm_floor else []),
            *([f"training adds noise of strength {self.noise_rho}"] if self.noise_rho else []),
            *(["and a tenth of it to the skip connection"] if self.noise_skip else []),
        ]
        return "; ".join(parts) + "."

    def details(self, block: MLPBlock, *, replaced: bool) -> Mapping[str, Any]:
        """The norm, and the function before."""
        return {"norm": block.norm, "before": spelled(block.activation)}

    def notes(self) -> tuple[str, ...]:
        """What the zeroth bias asks of the caller."""
        if not self.zeroth_bias:
            return ()
        if self.per_position:
            return ("Positions are counted from the first token of each call, so left padding shifts them.",)
        return ("One zeroth bias serves all tokens; its gradient is a sum over them and says nothing about each.",)

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Give one block the components that are switched on."""
        model = change.model
        norm = None if block.norm is None else model.get_submodule(block.norm)
        activation = JSReLU(0.0 if self.mixing_steps else 1.0, self.cap) if self.jsrelu else None
        skip = find_skip(model, block) if self.noise_skip else None
        floor = bias = None
        if activation is not None and block.site is not None:
            activation.training = block.site.owner.training
            replace_activation_(change, block, activation)
        if self.norm_floor is not None and norm is not None:
            floor = NormFloor(norm, self.norm_floor, bias=self.norm_bias, ramp_steps=self.uplift_steps or None)
            new_bias = floor.new_bias()
            if new_bias is not None:
                change.set(norm, "bias", new_bias)
        if self.noise_rho is not None:
            for site in {id(site.module): site for site in block.linears}.values():
                whole = dataclasses.replace(site, rows=None)
                add_after_(change, site.module, NoiseHook(whole, self.noise_rho))
        if skip is not None and self.noise_rho is not None:
            add_skip_noise_(change, block, skip, self.noise_rho)
        if self.zeroth_bias and norm is not None:
            bias = self._bias_for(model, block, norm)
            add_bias_(change, block, norm, bias)
        ramped = activation if self.mixing_steps else None
        offset = 0.0 if bias is None or norm is None else scale_offset(norm)
        entry = Installed(block.name, norm, bias, floor, ramped, self.mixing_steps, offset)
        change.set(model, INSTALLED, (*model.__dict__.get(INSTALLED, ()), entry))

    def _bias_for(self, model: nn.Module, block: MLPBlock, norm: nn.Module) -> ZerothBias:
        weight = norm._parameters["weight"]
        assert weight is not None
        width, length = block.d_in if self.position == "input" else block.d_out, length_of(model, self.max_len)
        return ZerothBias(length, width, self.bound, self.position, self.per_position).to(weight)

    def finish_(self, change: Transaction) -> None:
        """Refuse calls that continue a cached one."""
        if self.zeroth_bias and self.per_position and hasattr(change.model, "config"):
            add_hook_(change, change.model, refuse_cache)


def _misfit_of_norm(name: str, norm: nn.Module) -> str | None:
    if CHILD in norm._modules:
        return f"Its norm {name} holds a zeroth bias already; restore that change first."
    try:
        NormFloor(norm)
    except ConfigError as error:
        return str(error)
    return None


def _misfit_of_positions(model: nn.Module, block: MLPBlock) -> str | None:
    if any(isinstance(m, nn.MultiheadAttention) and not m.batch_first for m in model.modules()):
        return "The model takes (tokens, batch, width); build it with batch_first=True, or use per_position=False."
    if takes_flattened(model, block):
        return "It is given its tokens flattened, without their positions; use per_position=False."
    return None
