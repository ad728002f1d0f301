"""Whole training states on disk: after a kill at any moment, training goes on bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lazyneuron.core.arguments import check_folder
from lazyneuron.core.errors import MALFORMED, CheckpointError, ConfigError, DataError, LazyNeuronError, said
from lazyneuron.core.ranks import failing_together, is_distributed, rank, wait_for_all
from lazyneuron.core.sealed import write_sealed
from lazyneuron.induce.project import recipe_facts
from lazyneuron.train.random_state import noise_generators, random_state, set_random_state
from lazyneuron.train.saved import SavedStep, open_step
from lazyneuron.train.steps import DOCUMENT, MOST_STEPS, clean, folder_of, read_newest, whole_steps
from lazyneuron.train.tree import encode
from lazyneuron.train.untouched import untouched_on_failure


class HasState(Protocol):
    """An optimiser, schedule, gradient scaler, penalty controller, batch order: anything with these two."""

    def state_dict(self) -> Any:
        """What has to be kept."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it up again."""


class Checkpoints:
    """Saves and resumes everything that decides how a training goes on.

    That is: the model's ``state_dict`` (weights, zeroth biases, the mix of a JSReLU in mid-ramp), the named parts, the
    global random states of Python, NumPy and torch, and the generators of the model's ``TokenWeightNoise`` modules.
    Ramps of a recipe follow the step, which :meth:`resume_` returns. Files are safetensors and JSON, never pickle. The
    document that makes a folder a checkpoint is written last and removed first, and holds a checksum for every file: a
    kill at any moment, also while a step is saved again, leaves at least the checkpoint that was there.

    Under ``torch.distributed`` every process calls both methods and writes its own pieces of what is sharded
    (``torch.distributed.checkpoint``); any number of processes, or a single one, can resume. On as many as saved, it is
    bit for bit. On another number model and optimisers are, the other parts are those of the first process, and
    random states that differed between the processes begin anew, from a seed that follows from the saved ones.

    Args:
        folder: where; made if it is missing.
        model: the model, changed by ``sparsify_`` already where it is to be.
        keep: how many checkpoints stay, at least 1.
        parts: what else: an object with ``state_dict`` and ``load_state_dict``, or a ``torch.Generator``, each under a
            name of your choice. Optimisers have to be made for this very model.

    Raises:
        ConfigError: ``keep`` is no number from 1 on, a part has no state, or ``folder`` names none.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(2, 2)
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        >>> checkpoints.save(7).name, checkpoints.resume_()
        ('step-0000000007', 7)
    """

    def __init__(
        self, folder: str | Path, model: nn.Module, *, keep: int = 2, **parts: HasState | torch.Generator
    ) -> None:
        check_folder(folder)
        if not isinstance(keep, int) or keep < 1:
            raise ConfigError(f"At least one checkpoint has to stay, got keep={keep!r}.")
        for name, part in parts.items():
            if not isinstance(part, torch.Generator) and not hasattr(part, "load_state_dict"):
                raise ConfigError(f"The part {name!r} is a {type(part).__name__} without state_dict; leave it out.")
        self.folder, self.model, self.keep, self.parts = Path(folder), model, keep, parts

    def steps(self) -> list[int]:
        """The steps that there are whole checkpoints of, ascending."""
        return whole_steps(self.folder)

    def path(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return folder_of(self.folder, step)

    @property
    def last(self) -> str | None:
        """The folder of the newest checkpoint; None without one."""
        steps = self.steps()
        return str(self.path(steps[-1])) if steps else None

    def save(self, step: int) -> Path:
        """Write a checkpoint and let the oldest ones go.

        Args:
            step: optimiser steps made.

        Returns:
            Its folder.

        Raises:
            ConfigError: no step is counted so.
            CheckpointError: a part's state holds what cannot be saved.
            DataError: the folder cannot be written.
        """
        if not hasattr(step, "__index__") or not 0 <= step <= MOST_STEPS:
            raise ConfigError(f"A step is a whole number from 0 to {MOST_STEPS}, got {step!r}.")
        folder, own = self.path(step), encode(self._own())
        shared = {"step": int(step), "recipe": recipe_facts(self.model), "model": dict(self.model.state_dict())}
        shared["optimizers"] = {n: p.state_dict() for n, p in self._optimizers().items()}
        text, tensors = encode(shared, gather=False)
        try:
            if is_distributed():
                from lazyneuron.train.shards import save_shards

                save_shards(folder, DOCUMENT, shared=(text, tensors), own=own)
            else:
                written = {"rank-0": own[0], "shared": text}
                write_sealed(folder, DOCUMENT, written, {"rank-0": own[1], "shared": tensors})
            if rank() == 0:
                clean(self.folder, keep=self.keep, saved=step)
        except (OSError, SafetensorError, DataError) as error:
            if rank() == 0:
                with contextlib.suppress(OSError):
                    clean(self.folder, keep=None, saved=step)  # what was written may be what fills the disk
            raise DataError(f"Cannot write to {folder} ({said(error)}); choose another folder.") from error
        wait_for_all()
        return folder

    def resume_(self) -> int:
        """Bring everything back to the newest checkpoint that can be read; all of it or nothing.

        Returns:
            The optimiser steps it was made after; 0, with nothing changed, when there is no checkpoint. A warning says
            so if a newer checkpoint is damaged, or if saving the first one was interrupted.

        Raises:
            CheckpointError: no checkpoint can be read, or it was made with another model, recipe or set of parts.
        """
        found = read_newest(self.folder, open_step)
        if found is None:
            return 0
        try:
            with failing_together():
                self._check(found)
                like = self._like(found.shared)
            shared = found.load_shared(like)
            with untouched_on_failure(self.model, self.parts | self._generators()), failing_together():
                return self._apply(shared, found)
        except LazyNeuronError:
            raise
        except (*MALFORMED, SafetensorError) as error:
            raise CheckpointError(
                f"The checkpoint {found.path} is damaged ({type(error).__name__}: {said(error)}); use an earlier one."
            ) from error

    def _like(self, shared: Mapping[str, Any]) -> dict[int, Tensor]:
        """For tensors of a saved state, by ``id``, the ones here that they are to be laid out as."""
        here = self.model.state_dict()
        like = {id(v): here[k] for k, v in shared["model"].items() if isinstance(v, Tensor)}
        for name, optimizer in self._optimizers().items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for number, entry in shared["optimizers"][name]["state"].items():
                own = parameters[number] if number < len(parameters) else None
                like |= {id(v): own for v in entry.values() if own is not None and _shape(v) == _shape(own)}
        return like

    def _apply(self, shared: Mapping[str, Any], found: SavedStep) -> int:
        for name, part in self._others().items():
            part.load_state_dict(found.own["parts"][name])
        self._load_optimizers(shared["optimizers"], found.path)
        with torch.no_grad():
            self.model.load_state_dict(shared["model"])
        for name, generator in self._generators().items():
            state = found.own["generators"][name]
            generator.manual_seed(state) if isinstance(state, int) else generator.set_state(state)
        set_random_state(found.own["random"])
        return int(shared["step"])

    def _load_optimizers(self, saved: Mapping[str, Any], path: Path) -> None:
        for name, optimizer in self._optimizers().items():
            try:
                optimizer.load_state_dict(saved[name])
            except MALFORMED as error:
                raise CheckpointError(
                    f"The checkpoint {path} does not fit the optimiser {name!r} ({said(error)}); make it for the same "
                    "parameters, in the same groups."
                ) from error

    def _own(self) -> dict[str, Any]:
        """What each process has for itself."""
        return {
            "parts": {name: part.state_dict() for name, part in self._others().items()},
            "generators": {name: g.get_state() for name, g in self._generators().items()},
            "random": random_state(),
        }

    def _generators(self) -> dict[str, torch.Generator]:
        named = {n: p for n, p in self.parts.items() if isinstance(p, torch.Generator)}
        return named | {f"model.{name}": g for name, g in noise_generators(self.model).items()}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {n: p for n, p in self.parts.items() if isinstance(p, torch.optim.Optimizer)}

    def _others(self) -> dict[str, HasState]:
        apart = torch.optim.Optimizer | torch.Generator
        return {n: p for n, p in self.parts.items() if not isinstance(p, apart)}

    def _check(self, found: SavedStep) -> None:
        shared, own, path = found.shared, found.own, found.path
        here, saved = self.model.state_dict(), shared["model"]
        wrong = [k for k in {**here, **saved} if k not in here or k not in saved or _shape(here[k]) != _shape(saved[k])]
        if wrong:
            raise CheckpointError(
                f"The checkpoint {path} does not fit this model: {len(wrong)} tensors differ, such as {wrong[0]!r}; "
                "build the model and apply sparsify_ as for the saved training."
            )
        if shared["recipe"] != recipe_facts(self.model):
            raise CheckpointError(
                f"The checkpoint {path} was made with other settings of the recipe than this model has; apply "
                "sparsify_ with the recipe of the saved training."
            )
        named = {*shared["optimizers"], *own["parts"], *own["generators"]}
        wanted = {*self.parts, *self._generators()}
        if named != wanted:
            raise CheckpointError(
                f"The checkpoint {path} holds the parts {sorted(named)}, but {sorted(wanted)} were given; give those."
            )


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value)
