"""What belongs around the steps of a training, written once for every loop; the trainers' callbacks call it too."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import blocks_of
from lazyneuron.core.errors import ConfigError, DivergedError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import restore_
from lazyneuron.induce.project import has_recipe, project_
from lazyneuron.induce.training.controller import DensityController
from lazyneuron.induce.training.pressure import Pressure, pre_activations, total_pressure
from lazyneuron.train.checkpoint import Checkpoints
from lazyneuron.train.guard import LossGuard
from lazyneuron.train.monitor import Reading, ScalarWriter, SparsityMonitor
from lazyneuron.train.packing.transform import Arithmetic, pack_activations_
from lazyneuron.train.random_state import noise_generators, set_noise

Packing = bool | Arithmetic


class TrainingHooks:
    """Watches densities, adds a penalty, refuses a bad loss, projects and saves, each at its place in a step.

    Make it before the model is wrapped (DDP, FSDP2, ``torch.compile``). In a loop: :meth:`resume_` (or :meth:`start`),
    then for each step :meth:`begin_step`, the forward, :meth:`penalty` if there is one, :meth:`check`, backward, the
    optimiser's step and :meth:`end_step`; at the end :meth:`stop`.

    Args:
        model: the model that ``sparsify_`` changed, if it was.
        every: read the densities of the steps that are multiples of this; 0 for none.
        writer: told the readings, as a ``SummaryWriter`` of TensorBoard.
        blocks: the blocks to watch; None finds all.
        pressure: what :meth:`penalty` is, and the density that its strength is to reach.
        checkpoints: where to save and resume; with a pressure its controller is saved as the part ``controller``.
        save_every: save after the steps that are multiples of this; 0 for never.
        pack: keep for the backward only what fires, by :func:`pack_activations_`, from now until :meth:`stop`: True, or
            its ``arithmetic`` by name, which for True is ``"auto"``.

    Attributes:
        monitor: holds the readings; None if there are none to be.
        step: the last step that ended.
        kept: the last good checkpoint, for the message about a bad loss, where a trainer writes them.

    Raises:
        NoBlocksError: the model has no MLP block, or none that can be packed.
        ConfigError: a number out of range, a model that is packed already, or the checkpoints have a part
            ``controller`` already.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        writer: ScalarWriter | None = None,
        blocks: Sequence[MLPBlock] | None = None,
        pressure: Pressure | None = None,
        checkpoints: Checkpoints | None = None,
        save_every: int = 0,
        pack: Packing = False,
    ) -> None:
        if save_every < 0 or (save_every and checkpoints is None):
            raise ConfigError(f"`save_every` is a number of steps >= 0 and needs checkpoints, got {save_every!r}.")
        self.model, self.blocks = model, blocks_of(model, blocks)
        self.monitor = SparsityMonitor(model, every=every, writer=writer, blocks=self.blocks) if every else None
        self.pressure, self.controller = pressure, DensityController(pressure.target) if pressure else None
        self.checkpoints, self.save_every = checkpoints, save_every
        if checkpoints is not None and self.controller is not None:
            if "controller" in checkpoints.parts:
                raise ConfigError("The part 'controller' of the checkpoints is these hooks' own; leave it out.")
            checkpoints.parts["controller"] = self.controller
        self.step = 0
        self.kept: str | None = None
        self.until_stopped = contextlib.ExitStack()
        self._begun: int | None = None
        self._packs = pack
        self._packed = self._pack()
        self._guard: LossGuard | None = None
        self._caught: dict[str, Tensor] = {}

    def resume_(self) -> int:
        """Go on from the newest checkpoint, if there is one, and begin to watch.

        Returns:
            The optimiser steps made so far.

        Raises:
            ConfigError: there is no place for checkpoints.
            CheckpointError: no checkpoint can be read, or it does not fit.
        """
        if self.checkpoints is None:
            raise ConfigError("There is nothing to resume from; make the hooks with checkpoints.")
        step = self.checkpoints.resume_()
        self.start(step)
        return step

    def start(self, step: int = 0) -> None:
        """Begin to watch, and project, so that the first forward is within the constraints.

        Args:
            step: optimiser steps made so far.
        """
        self.until_stopped.close()
        self._packed = self._packed or self._pack()
        self._guard = LossGuard(self.model, blocks=self.blocks, kept=self._last_kept)
        self.until_stopped.callback(self._guard.remove)
        if self.pressure is not None:
            self._caught = self.until_stopped.enter_context(pre_activations(self.blocks))
        if self.monitor is not None:
            self.until_stopped.callback(self.monitor.drop)
        self._project(step)

    def begin_step(self, step: int) -> None:
        """Look at this step's forwards if it is their turn; once a step, however many batches it takes."""
        if self.monitor is not None and self._begun != step:
            self.monitor.start(step)
        self._begun = step

    def penalty(self, *, progress: float, mask: Tensor | None = None) -> Tensor:
        """What is to be added to the loss of the forward that just ran.

        Args:
            progress: share of the training done so far, in [0, 1].
            mask: nonzero where a token is real; used where it has a block's token axes.

        Returns:
            A scalar with gradient: the penalty, as strong as the density asks for.

        Raises:
            ConfigError: the hooks have no pressure, or no block ran since the last call.
        """
        if self.pressure is None or self.controller is None:
            raise ConfigError("There is no penalty to add; make the hooks with a pressure.")
        penalty, density = total_pressure(self.pressure, self.blocks, caught=self._caught, mask=mask)
        self._caught.clear()
        return self.controller.update(density, progress=progress) * penalty

    def check(self, loss: Tensor | float, *, step: int) -> None:
        """Let a finite loss pass; call it before the optimiser's step.

        Raises:
            DivergedError: it is infinite or not a number; all hooks are off then.
        """
        try:
            if self._guard is not None:
                self._guard.check(loss, step=step)
        except DivergedError:
            self.stop()
            raise

    def end_step(self, step: int) -> Reading | None:
        """After the optimiser's step: project, note what was seen, save if it is time.

        Returns:
            The reading, if it was this step's turn.
        """
        self._project(step)
        reading = None if self.monitor is None else self.monitor.stop(step)
        if self.checkpoints is not None and self.save_every and step % self.save_every == 0:
            self.checkpoints.save(step)
        return reading

    def stop(self) -> None:
        """Take everything off the model; :meth:`start` begins anew."""
        self.until_stopped.close()
        self._guard, self._begun = None, None
        if self._packed is not None:
            restore_(self.model, self._packed)
            self._packed = None

    def state_dict(self) -> dict[str, Any]:
        """What a trainer's own checkpoints lack: the states of noise generators and of the controller."""
        noise = {name: generator.get_state() for name, generator in noise_generators(self.model).items()}
        found: dict[str, Any] = {"noise": noise} if noise else {}
        return found | ({} if self.controller is None else {"controller": self.controller.state_dict()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave, or the bare generators of earlier versions.

        Raises:
            CheckpointError: it is that of another model.
        """
        named = any(isinstance(state.get(key), Mapping) for key in ("noise", "controller"))
        set_noise(self.model, state.get("noise", {}) if named else state)
        if self.controller is not None and "controller" in state:
            self.controller.load_state_dict(state["controller"])

    def _pack(self) -> Receipt | None:
        if not self._packs:
            return None
        arithmetic: Arithmetic = "auto" if self._packs is True else self._packs
        return pack_activations_(self.model, arithmetic=arithmetic, blocks=self.blocks)

    def _project(self, step: int) -> None:
        self.step = step
        if has_recipe(self.model):
            project_(self.model, step=step)

    def _last_kept(self) -> str | None:
        return self.kept if self.checkpoints is None else self.checkpoints.last
