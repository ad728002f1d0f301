"""Whole training states on disk: after a kill at any moment, training goes on bit for bit."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lazyneuron.core.errors import CheckpointError, ConfigError, DataError
from lazyneuron.induce.project import recipe_facts
from lazyneuron.train.random_state import noise_generators, random_state, set_random_state
from lazyneuron.train.sharding import as_held, gather_only, like_parameters
from lazyneuron.train.tree import read_tree, write_tree

_NAME = re.compile(r"step-(\d{10})")


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
    Ramps of a recipe follow the step, which :meth:`resume_` returns. Files are safetensors and JSON, never pickle. A
    checkpoint is written beside the others and then renamed, so that a kill at any moment leaves whole ones only.

    Under ``torch.distributed`` every process calls both methods; sharded parameters are gathered for saving and
    sharded again when resuming on as many processes.

    Args:
        folder: where; made if it is missing.
        model: the model, changed by ``sparsify_`` already where it is to be.
        keep: how many checkpoints stay, at least 1.
        parts: what else: an object with ``state_dict`` and ``load_state_dict``, or a ``torch.Generator``, each under a
            name of your choice. Optimisers have to be made for this very model.

    Raises:
        ConfigError: ``keep`` is below 1, or a part has no state.

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
        if keep < 1:
            raise ConfigError(f"At least one checkpoint has to stay, got keep={keep}.")
        for name, part in parts.items():
            if not isinstance(part, torch.Generator) and not hasattr(part, "load_state_dict"):
                raise ConfigError(f"The part {name!r} is a {type(part).__name__} without state_dict; leave it out.")
        self.folder, self.model, self.keep, self.parts = Path(folder), model, keep, parts

    def steps(self) -> list[int]:
        """The steps that there are whole checkpoints of, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(m[1]) for m in map(_NAME.fullmatch, os.listdir(self.folder)) if m)

    def path(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / f"step-{step:010d}"

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
            CheckpointError: a part's state holds what cannot be saved.
            DataError: the folder cannot be written.
        """
        final, rank = self.path(step), _rank()
        draft = final.with_suffix(".part")
        if rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir(parents=True)
            except OSError as error:
                raise DataError(f"Cannot write to {self.folder} ({error.strerror}); choose another folder.") from error
        _wait()
        shared = {"step": step, "recipe": recipe_facts(self.model), "model": dict(self.model.state_dict())}
        shared["optimizers"] = {n: p.state_dict() for n, p in self._optimizers().items()}
        if rank == 0:
            write_tree(shared, draft / "shared")
        else:
            gather_only(shared)
        write_tree(self._own(), draft / f"rank-{rank}")
        _wait()
        if rank == 0:
            self._publish(draft, final)
        _wait()
        return final

    def resume_(self) -> int:
        """Bring everything back to the newest checkpoint.

        Returns:
            The optimiser steps it was made after; 0, with nothing changed, when there is no checkpoint.

        Raises:
            CheckpointError: the checkpoint is damaged or was made with another model, recipe or set of parts.
        """
        steps = self.steps()
        if not steps:
            return 0
        path = self.path(steps[-1])
        shared, own = read_tree(path / "shared"), read_tree(path / f"rank-{_rank()}")
        self._check(shared, own, path)
        before = {name: copy.deepcopy(part.state_dict()) for name, part in self._others().items()}
        try:
            for name, part in self._others().items():
                part.load_state_dict(own["parts"][name])
            self._load_optimizers(shared["optimizers"], path)
        except BaseException:
            for name, part in self._others().items():
                part.load_state_dict(before[name])
            raise
        with torch.no_grad():
            here = self.model.state_dict()
            self.model.load_state_dict({k: as_held(v, here[k]) for k, v in shared["model"].items()})
        for name, generator in self._generators().items():
            generator.set_state(own["generators"][name])
        set_random_state(own["random"])
        return int(shared["step"])

    def _load_optimizers(self, saved: Mapping[str, Any], path: Path) -> None:
        for name, optimizer in self._optimizers().items():
            try:
                optimizer.load_state_dict(like_parameters(saved[name], optimizer))
            except (ValueError, KeyError) as error:
                raise CheckpointError(
                    f"The checkpoint {path} does not fit the optimiser {name!r} ({error}); make it for the same "
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

    def _check(self, shared: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
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

    def _publish(self, draft: Path, final: Path) -> None:
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        for step in self.steps()[: -self.keep]:
            old = self.path(step)
            gone = old.with_suffix(".part")  # renamed first, so that no half-removed one is ever taken for whole
            shutil.rmtree(gone, ignore_errors=True)
            old.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _wait() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
