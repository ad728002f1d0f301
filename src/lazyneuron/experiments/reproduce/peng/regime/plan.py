"""Which trainings each experiment of the regime compares, and in which order they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import platformdirs

from lazyneuron.experiments.experiment import Request
from lazyneuron.experiments.reproduce.peng.regime.case import Case, Job, Kind, Setting, Tuning, vanilla_of
from lazyneuron.experiments.reproduce.peng.regime.tasks import Begin
from lazyneuron.experiments.training.language import LanguageSize
from lazyneuron.experiments.training.trainer import Variant
from lazyneuron.experiments.training.vision import VisionSize
from lazyneuron.induce import Chain, DoublyBiased, Pressure, TargetDensity

STEPS, LONG_STEPS, CLIPPING_STEPS = 20_000, 100_000, 10_000
TUNING = 0.5  # of the steps before, as 10 000 of 20 000
RAMP = 0.3  # of those of fine-tuning, as 3000 of 10 000
TUNED: tuple[Kind, ...] = ("decoder", "spans", "vision")
TARGETS = (0.05, 0.03)
_OFF: dict[str, Any] = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
VANILLA, ALL_THREE = Variant(name="vanilla"), Variant(name="all three", recipe=DoublyBiased())
SINGLE = (
    Variant(name="JSReLU", recipe=DoublyBiased(**(_OFF | {"jsrelu": True}))),
    Variant(name="zeroth bias", recipe=DoublyBiased(**(_OFF | {"zeroth_bias": True}))),
    Variant(name="norm floor", recipe=DoublyBiased(**(_OFF | {"norm_floor": 1.0}))),
)
FIRST_BLOCK = ("*.0.mlp", "encoder.block.0.*")
LESS_JSRELU = (  # alone, it makes the first block denser
    Variant(name="norm floor and zeroth bias", recipe=DoublyBiased(jsrelu=False)),
    Variant(
        name="all three, ReLU in the first block",
        recipe=Chain((DoublyBiased(jsrelu=False, blocks=FIRST_BLOCK), DoublyBiased())),
    ),
)
OUTPUT = (
    Variant(name="all three, bias on the output", recipe=DoublyBiased(position="output")),
    Variant(
        name="zeroth bias on the output", recipe=DoublyBiased(**(_OFF | {"zeroth_bias": True, "position": "output"}))
    ),
)


def begin_of(kind: Kind) -> Begin:
    """Tokens of deviation 1, as T5's and torchvision's; T5 begins so in any case."""
    return "tokens" if kind in ("decoder", "vision") else "torch"


def ablation(kind: Kind, steps: int) -> tuple[Case, ...]:
    """Vanilla, all three, each alone, with less JSReLU, and the bias on the authors' side, from scratch."""
    variants = (VANILLA, ALL_THREE, *SINGLE, *LESS_JSRELU, *OUTPUT)
    return tuple(Case(kind=kind, variant=v, steps=steps, begin=begin_of(kind)) for v in variants)


def small_tokens(steps: int) -> tuple[Case, ...]:
    """Vanilla, all three and each alone in a decoder whose tokens begin with deviation 0.02."""
    return tuple(Case(kind="decoder", variant=v, steps=steps) for v in (VANILLA, ALL_THREE, *SINGLE))


def wide(steps: int) -> tuple[Case, ...]:
    """Vanilla and all three with fewer neurons than features, and twice the layers."""
    return tuple(Case(kind="wide", variant=v, steps=steps) for v in (VANILLA, ALL_THREE))


def other_optimizer(steps: int) -> tuple[Case, ...]:
    """Vanilla and all three with Adafactor."""
    return tuple(
        Case(kind=kind, variant=v, steps=steps, optimizer="adafactor", begin=begin_of(kind))
        for kind in ("decoder", "spans")
        for v in (VANILLA, ALL_THREE)
    )


def clipping(steps: int) -> tuple[Case, ...]:
    """Vanilla and all three in a decoder, with and without clipping, from each kind of first weights."""
    begins: tuple[Begin, ...] = ("tokens", "torch", "unit", "gpt2")
    return tuple(
        Case(kind="decoder", variant=v, steps=steps, begin=begin, clipped=clipped)
        for begin in begins
        for clipped in (False, True)
        for v in (VANILLA, ALL_THREE)
    )


def longer(steps: int) -> tuple[Case, ...]:
    """Vanilla and all three, for longer."""
    return tuple(Case(kind="decoder", variant=v, steps=steps, begin=begin_of("decoder")) for v in (VANILLA, ALL_THREE))


def pressed(steps: int) -> tuple[Case, ...]:
    """The density-controlled penalty alone and with the three modules, at two densities, and both without it."""
    pressures = [Pressure(target=TargetDensity(density=density, strength=0.1)) for density in TARGETS]
    both = [
        Variant(name=f"{name} to {p.target.density:g}", recipe=recipe, pressure=p)
        for p in pressures
        for name, recipe in (("pressure", None), ("all three, pressure", DoublyBiased()))
    ]
    variants = (VANILLA, ALL_THREE, *both)
    return tuple(Case(kind="decoder", variant=v, steps=steps, begin=begin_of("decoder")) for v in variants)


def tuned(start: int) -> tuple[Case, ...]:
    """Fine-tuning of the vanilla model, with all weights and by adapters, beside plainly training on.

    With all weights also without JSReLU, which costs the most in some blocks.
    """
    steps = max(1, round(TUNING * start))
    recipe = DoublyBiased.for_finetuning(max(1, round(RAMP * steps)))
    both = (Variant(name="trained on"), Variant(name="all three", recipe=recipe))
    less = Variant(name="norm floor and zeroth bias", recipe=dataclasses.replace(recipe, jsrelu=False, mixing_steps=0))
    variants: dict[Tuning, tuple[Variant, ...]] = {"full": (*both, less), "lora": both}
    return tuple(
        Case(kind=kind, variant=variant, steps=steps, tuning=tuning, start=start, begin=begin_of(kind))
        for kind in TUNED
        for tuning, own in variants.items()
        for variant in own
    )


def stages(cases: Sequence[Case], setting: Setting, seeds: int) -> list[list[Job]]:
    """Jobs that may run side by side; what fine-tuning goes on from comes first. Seed by seed."""
    found = []
    for seed in range(seeds):
        before = dict.fromkeys(c.kind for c in cases if c.tuning != "scratch")
        starts = [vanilla_of(next(c for c in cases if c.kind == kind and c.tuning != "scratch")) for kind in before]
        for stage in (starts, cases):
            if stage:
                found.append([Job(case=case, setting=setting, seed=seed) for case in stage])
    return found


def setting_of(request: Request) -> Setting:
    """Sizes for a request: small on a CPU, larger on an accelerator, tiny when quick."""
    root = request.folder or platformdirs.user_cache_path("lazyneuron") / "peng-regime"
    setting = Setting(root=root, library=request.data, device=request.device)
    if request.quick:
        tiny = LanguageSize(width=16, layers=1, heads=2, hidden=32, length=32, batch=4)
        return dataclasses.replace(
            setting,
            root=root / "quick",
            characters=1_000_000,
            language=tiny,
            spans=tiny,
            wide=dataclasses.replace(tiny, layers=2, hidden=8),
            vision=VisionSize(width=16, layers=1, heads=2, hidden=32, patch=4, batch=8),
            warmup=2,
            first_looks=(4,),
            look_every=10,
        )
    if request.large:
        large = LanguageSize(width=256, layers=6, heads=8, hidden=1024, length=256, batch=64)
        return dataclasses.replace(
            setting,
            root=root / "large",
            language=large,
            spans=dataclasses.replace(large, layers=4),
            wide=dataclasses.replace(large, width=512, layers=12, hidden=256),
            vision=VisionSize(width=192, layers=6, heads=6, hidden=768, patch=2, batch=256),
            learning_rate=1e-3,
        )
    return setting


def steps_of(request: Request, steps: int) -> int:
    """A handful when quick; else as many as were asked for, or that many."""
    return 20 if request.quick else request.steps or steps
