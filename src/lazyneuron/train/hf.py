"""A callback for Hugging Face's ``Trainer``; importing this file imports transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.induce.training.pressure import Pressure
from lazyneuron.train.hooks import Packing, TrainingHooks
from lazyneuron.train.monitor import ScalarWriter
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
        blocks: the blocks to watch; None finds all.
        pressure: for ``callback.hooks.penalty(...)``, which the Trainer's ``compute_loss_func`` may add to the loss.
        pack: keep for the backward only what fires, and compute with it alone where that is faster, until the training
            ends; see :class:`TrainingHooks`.

    Attributes:
        hooks: what is called, as in a loop of one's own.

    Raises:
        NoBlocksError: the model has no MLP block, or none that can be packed.
        ImplUnavailable: transformers is not installed (on import).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        writer: ScalarWriter | None = None,
        blocks: Sequence[MLPBlock] | None = None,
        pressure: Pressure | None = None,
        pack: Packing = False,
    ) -> None:
        self.hooks = TrainingHooks(model, every=every, writer=writer, blocks=blocks, pressure=pressure, pack=pack)
        self.monitor = self.hooks.monitor
        self._worst: Tensor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up the state of the checkpoint that the Trainer resumes from, and begin to watch."""
        self.hooks.start(state.global_step)
        self.hooks.until_stopped.callback(self.hooks.model.register_forward_hook(self._note).remove)
        if state.global_step:
            folder = _checkpoint(args, state)
            self.hooks.kept = str(folder)
            if (folder / f"{_EXTRA}.json").exists():
                self.hooks.load_state_dict(read_tree(folder, _EXTRA))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at this step's forwards if it is their turn."""
        self._worst = None
        self.hooks.begin_step(state.global_step + 1)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse a step whose loss is not finite, before it touches the weights.

        Raises:
            DivergedError: it is not.
        """
        if self._worst is not None:
            self.hooks.check(self._worst, step=state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Project, and log what was seen."""
        reading = self.hooks.end_step(state.global_step)
        if reading is not None:
            state.log_history.append({**reading.scalars(), "step": state.global_step})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add what the Trainer does not know to its checkpoint."""
        folder, extra = _checkpoint(args, state), self.hooks.state_dict()
        self.hooks.kept = str(folder)
        if extra and state.is_world_process_zero:
            write_tree(extra, folder, _EXTRA)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take all hooks off."""
        self.hooks.stop()

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
