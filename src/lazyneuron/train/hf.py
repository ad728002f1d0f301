"""A callback for Hugging Face's ``Trainer``; importing this file imports transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import DivergedError, ImplUnavailable
from lazyneuron.induce.project import has_recipe, project_
from lazyneuron.train.guard import LossGuard
from lazyneuron.train.monitor import ScalarWriter, SparsityMonitor
from lazyneuron.train.random_state import noise_generators, set_noise
from lazyneuron.train.tree import read_tree, write_tree

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImplUnavailable("The Trainer callback needs transformers; run pip install 'lazyneuron[trainer]'.") from error

_EXTRA = "lazyneuron"


class SparsityCallback(TrainerCallback):  # type: ignore[misc]
    """Projects after each optimiser step, logs densities, and stops a training whose loss is not finite.

    Readings go into the Trainer's ``log_history``, and to ``writer`` if there is one. The generators of
    ``TokenWeightNoise`` modules, which the Trainer does not know, are saved in its checkpoints and taken up again.
    The loss is what the model's output holds; when it holds none, the output itself has to be finite.

    Args:
        model: the model that ``sparsify_`` changed, before it is wrapped; the one that the Trainer gets.
        every: log the densities of the steps that are multiples of this; 0 for none.
        writer: told the numbers too, as a ``SummaryWriter`` of TensorBoard.

    Raises:
        NoBlocksError: the model has no MLP block.
        ImplUnavailable: transformers is not installed (on import).
    """

    def __init__(self, model: nn.Module, *, every: int = 100, writer: ScalarWriter | None = None) -> None:
        self.model = model
        self.blocks = blocks_of(model, None)
        self.monitor = SparsityMonitor(model, every=every, writer=writer, blocks=self.blocks) if every else None
        self._guard: LossGuard | None = None
        self._kept: str | None = None
        self._worst: Tensor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the generators of the checkpoint that the Trainer resumes from, and begin to watch the loss."""
        self._stop()
        self._guard = LossGuard(self.model, blocks=self.blocks, kept=lambda: self._kept)
        self._noting = self.model.register_forward_hook(self._note)
        if state.global_step:
            self._kept = str(_checkpoint(args, state))
            folder = _checkpoint(args, state)
            if (folder / f"{_EXTRA}.json").exists():
                set_noise(self.model, read_tree(folder, _EXTRA))
        elif has_recipe(self.model):
            project_(self.model, step=0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at this step's forwards if it is their turn."""
        self._worst = None
        if self.monitor is not None:
            self.monitor.start(state.global_step + 1)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse a step whose loss is not finite, before it touches the weights.

        Raises:
            DivergedError: it is not.
        """
        if self._worst is not None and self._guard is not None:
            try:
                self._guard.check(self._worst, step=state.global_step + 1)
            except DivergedError:
                self._stop()
                raise

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Project, and note what was seen."""
        if has_recipe(self.model):
            project_(self.model, step=state.global_step)
        reading = None if self.monitor is None else self.monitor.stop(state.global_step)
        if reading is not None:
            state.log_history.append({**reading.scalars(), "step": state.global_step})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the noise generators to the Trainer's checkpoint."""
        folder = _checkpoint(args, state)
        self._kept = str(folder)
        generators = noise_generators(self.model)
        if generators and state.is_world_process_zero:
            write_tree({name: g.get_state() for name, g in generators.items()}, folder, _EXTRA)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take all hooks off."""
        self._stop()

    def _stop(self) -> None:
        if self._guard is not None:
            self._guard.remove()
            self._noting.remove()
            self._guard = None
        if self.monitor is not None:
            self.monitor.drop()

    def _note(self, module: nn.Module, _: Any, output: Any) -> None:
        """Keep the step's loss, or its worst: a sum is finite only if every loss is."""
        if module.training and torch.is_grad_enabled():
            found = _loss(output)
            if found is not None:
                self._worst = found if self._worst is None else self._worst + found


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _loss(output: Any) -> Tensor | None:
    value = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(value, Tensor):
        parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else [output]
        value = next((v for v in parts if isinstance(v, Tensor)), None)
    return None if value is None else value.detach().float().mean()
