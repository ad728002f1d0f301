"""A callback for Lightning's ``Trainer``; importing this file imports lightning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.induce.training.pressure import Pressure
from lazyneuron.train.hooks import Packing, TrainingHooks
from lazyneuron.train.monitor import ScalarWriter

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImplUnavailable("The Lightning callback needs lightning; run pip install 'lazyneuron[lightning]'.") from error


class SparsityCallback(Callback):  # type: ignore[misc]
    """Projects after each optimiser step, logs densities, and stops a training whose loss is not finite.

    Readings go to the Trainer's loggers, and to ``writer`` if there is one. The generators of ``TokenWeightNoise``
    modules are part of the callback's state, so Lightning's checkpoints hold them.

    Args:
        model: the model that ``sparsify_`` changed: the LightningModule itself or a module in it.
        every: log the densities of the steps that are multiples of this; 0 for none.
        writer: told the numbers too, as a ``SummaryWriter`` of TensorBoard.
        blocks: the blocks to watch; None finds all.
        pressure: for ``callback.hooks.penalty(...)``, which ``training_step`` may add to the loss.
        pack: keep for the backward only what fires, and compute with it alone where that is faster, until the training
            ends; see :class:`TrainingHooks`.

    Attributes:
        hooks: what is called, as in a loop of one's own.

    Raises:
        NoBlocksError: the model has no MLP block, or none that can be packed.
        ImplUnavailable: lightning is not installed (on import).
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

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Project once, so that the first forward is within the constraints, and begin to watch."""
        self.hooks.start(trainer.global_step)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at this step's forwards if it is their turn; a step may take several batches."""
        self.hooks.begin_step(trainer.global_step + 1)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Refuse a loss that is not finite, before it touches the weights.

        Raises:
            DivergedError: it is not.
        """
        manager = trainer.checkpoint_callback
        self.hooks.kept = (getattr(manager, "last_model_path", "") or getattr(manager, "best_model_path", "")) or None
        self.hooks.check(loss, step=trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Project and log what was seen, if the optimiser has made a step."""
        if trainer.global_step == self.hooks.step:
            return
        reading = self.hooks.end_step(trainer.global_step)
        if reading is not None:
            for logger in trainer.loggers:
                logger.log_metrics(reading.scalars(), step=reading.step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take all hooks off."""
        self.hooks.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take all hooks off."""
        self.hooks.stop()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning's checkpoints lack."""
        return self.hooks.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.hooks.load_state_dict(state_dict)
