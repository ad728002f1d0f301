"""One training of the regime: what is learned, what is done for sparsity, by which optimiser, from where."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lazyneuron.experiments.reproduce.peng.regime.tasks import Begin, ByteDecoder, ByteSpans, Endless, EndlessDigits
from lazyneuron.experiments.reproduce.peng.regime.text import bytes_in
from lazyneuron.experiments.training.images import digits
from lazyneuron.experiments.training.language import LanguageSize
from lazyneuron.experiments.training.trainer import Variant
from lazyneuron.experiments.training.vision import VisionSize
from lazyneuron.induce import parameter_groups

Kind = Literal["decoder", "spans", "vision", "wide"]
Tuning = Literal["scratch", "full", "lora"]
_USUAL = ("adamw", "scratch", "torch", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trainings of an experiment share.

    Attributes:
        root: the folder with a folder for each training, and the text.
        library: sources to learn from in place of this Python's; None takes those and the installed packages.
        characters, package_characters: of text to read at most, and of one package.
        language, spans, vision, wide: sizes of models and batches; the wide decoder has fewer neurons than features, so
            that ``K K^T`` has full rank and no effective gradient can hide in its kernel.
        warmup: steps in which the learning rate of clipped trainings rises.
        learning_rate, weight_decay: of AdamW.
        adafactor_rate: of Adafactor, relative to the scale of each matrix.
        smoothing: of the labels of images.
        clip: largest norm of the gradient of clipped trainings.
        first_looks, look_every: steps of the first looks, and between two; see :meth:`looks`.
        device: where to train.
    """

    root: Path
    library: Path | None = None
    characters: int = 120_000_000
    package_characters: int = 15_000_000
    language: LanguageSize = dataclasses.field(
        default_factory=lambda: LanguageSize(width=64, layers=3, heads=4, hidden=256, length=64, batch=16)
    )
    spans: LanguageSize = dataclasses.field(
        default_factory=lambda: LanguageSize(width=64, layers=2, heads=4, hidden=256, length=64, batch=16)
    )
    vision: VisionSize = dataclasses.field(
        default_factory=lambda: VisionSize(width=64, layers=3, heads=4, hidden=256, patch=4, batch=64)
    )
    wide: LanguageSize = dataclasses.field(
        default_factory=lambda: LanguageSize(width=128, layers=6, heads=4, hidden=64, length=64, batch=16)
    )
    warmup: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    adafactor_rate: float = 1e-2
    smoothing: float = 0.1
    clip: float = 1.0
    first_looks: tuple[int, ...] = (250, 500)
    look_every: int = 1000
    device: str = "cpu"

    def looks(self, steps: int) -> list[int]:
        """Steps after which to look: every ``look_every``, from 20 times that on every fifth of them."""
        dense, sparse = 20 * self.look_every, 5 * self.look_every
        late = range(dense + sparse, steps + 1, sparse)
        regular = range(self.look_every, min(steps, dense) + 1, self.look_every)
        return sorted({s for s in (*self.first_looks, *regular, *late) if s <= steps} | {steps})

    def facts(self, kind: Kind) -> dict[str, Any]:
        """What decides a training of a task, JSON-able."""
        left_out = {"root", "library", "language", "spans", "vision", "wide", "device", "first_looks", "look_every"}
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        sizes: dict[Kind, Any] = {
            "decoder": self.language,
            "spans": self.spans,
            "vision": self.vision,
            "wide": self.wide,
        }
        size = sizes[kind]
        found |= {"library": None if self.library is None else str(self.library), "size": dataclasses.asdict(size)}
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is compared.

    Attributes:
        kind: the task.
        variant: what is done for sparsity.
        steps: of the optimiser; a training can be made longer unless it has a pressure, which is spread over them.
        optimizer: ``"adamw"`` or ``"adafactor"``.
        tuning: from new weights, or on from the vanilla model with all weights (``"full"``) or by adapters
            (``"lora"``).
        start: steps of the vanilla training that fine-tuning goes on from.
        begin: the first weights of a decoder, and of the stem of a vision transformer.
        clipped: cut gradients at a norm, after a warm-up, as is usual.
    """

    kind: Kind
    variant: Variant
    steps: int
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    tuning: Tuning = "scratch"
    start: int = 0
    begin: Begin = "torch"
    clipped: bool = False

    @property
    def name(self) -> str:
        """As in folders: task, optimiser, tuning and first weights where they are not the usual ones, variant."""
        tuning = self.tuning if self.tuning == "scratch" else f"{self.tuning}-after-{self.start}"
        special = (self.optimizer, tuning, self.begin, "clipped" if self.clipped else "")
        apart = [part for part in special if part not in _USUAL]
        return "-".join([self.kind, *apart, *self.variant.name.replace(",", "").split()])

    def data(self) -> dict[str, Any]:
        """What decides the training, JSON-able; without the number of steps unless a pressure is spread over them."""
        recipe, pressure = self.variant.recipe, self.variant.pressure
        found = {
            "recipe": None if recipe is None else recipe.to_data(),
            "pressure": None if pressure is None else dataclasses.asdict(pressure) | {"steps": self.steps},
            "optimizer": self.optimizer,
            "tuning": self.tuning,
            "start": self.start,
            "begin": self.begin,
            "clipped": self.clipped,
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training of a case."""

    case: Case
    setting: Setting
    seed: int

    @property
    def folder(self) -> Path:
        """Where its state is kept."""
        return self.setting.root / self.case.name / f"seed-{self.seed}"

    @property
    def start(self) -> Path | None:
        """The weights that it goes on from; None for new ones."""
        if self.case.tuning == "scratch":
            return None
        vanilla = dataclasses.replace(self, case=vanilla_of(self.case))
        return vanilla.folder / weights_name(self.case.start)


def vanilla_of(case: Case) -> Case:
    """The training that a fine-tuning goes on from."""
    return Case(kind=case.kind, variant=Variant(name="vanilla"), steps=case.start, begin=case.begin)


def weights_name(steps: int) -> str:
    """The file of a training's weights after some steps."""
    return f"weights-{steps}.safetensors"


def task_of(kind: Kind, setting: Setting, *, begin: Begin = "torch") -> Endless:
    """The task, with the text that the folder keeps.

    Raises:
        DataError, CheckpointError, ImplUnavailable: as for the text and the images.
    """
    task: Endless
    if kind == "vision":
        task = EndlessDigits(digits(), setting.vision, begin=begin)
    else:
        text = bytes_in(
            setting.root / "text",
            limit=setting.characters,
            package_limit=setting.package_characters,
            library=setting.library,
        )
        if kind == "spans":
            task = ByteSpans(text, setting.spans)
        else:
            task = ByteDecoder(text, setting.language if kind == "decoder" else setting.wide, begin=begin)
    task.device = torch.device(setting.device)
    return task


def optimizer_of(case: Case, model: nn.Module, setting: Setting) -> torch.optim.Optimizer:
    """The optimiser; zeroth biases are not decayed."""
    groups = parameter_groups(model, setting.weight_decay)
    if case.optimizer == "adafactor":
        for group in groups:  # its decay is not times the rate's scale, so both move weights alike
            group["weight_decay"] *= setting.learning_rate / setting.adafactor_rate
        return torch.optim.Adafactor(groups, lr=setting.adafactor_rate)
    return torch.optim.AdamW(groups, lr=setting.learning_rate, fused=True)
