"""A callback for Lightning's ``Trainer``; importing this file imports lightning."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.induce.project import has_recipe, project_
from lazyneuron.train.guard import LossGuard
from lazyneuron.train.monitor import ScalarWriter, SparsityMonitor
from lazyneuron.train.random_state import noise_generators, set_noise

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

    Raises:
        NoBlocksError: the model has no MLP block.
        ImplUnavailable: lightning is not installed (on import).
    """

    def __init__(self, model: nn.Module, *, every: int = 100, writer: ScalarWriter | None = None) -> None:
        self.model = model
        self.blocks = blocks_of(model, None)
        self.monitor = SparsityMonitor(model, every=every, writer=writer, blocks=self.blocks) if every else None
        self._guard: LossGuard | None = None
        self._kept: str | None = None
        self._projected = -1
        self._opened = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Project once, so that the first forward is within the constraints, and begin to watch the loss."""
        self._stop()
        self._guard = LossGuard(self.model, blocks=self.blocks, kept=lambda: self._kept)
        self._opened = -1
        self._project(trainer.global_step)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at this step's forwards if it is their turn; a step may take several batches."""
        if self.monitor is not None and self._opened != trainer.global_step:
            self._opened = trainer.global_step
            self.monitor.start(trainer.global_step + 1)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Refuse a loss that is not finite, before it touches the weights.

        Raises:
            DivergedError: it is not.
        """
        manager = trainer.checkpoint_callback
        self._kept = (getattr(manager, "last_model_path", "") or getattr(manager, "best_model_path", "")) or None
        if self._guard is not None:
            self._guard.check(loss, step=trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Project and note what was seen, if the optimiser has made a step."""
        step = trainer.global_step
        if step == self._projected:
            return
        self._project(step)
        reading = None if self.monitor is None else self.monitor.stop(step)
        if reading is not None:
            for logger in trainer.loggers:
                logger.log_metrics(reading.scalars(), step=step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take all hooks off."""
        self._stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take all hooks off."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """The noise generators' states."""
        return {name: g.get_state() for name, g in noise_generators(self.model).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up again."""
        set_noise(self.model, state_dict)

    def _stop(self) -> None:
        if self._guard is not None:
            self._guard.remove()
            self._guard = None
        if self.monitor is not None:
            self.monitor.drop()

    def _project(self, step: int) -> None:
        self._projected = step
        if has_recipe(self.model):
            project_(self.model, step=step)
