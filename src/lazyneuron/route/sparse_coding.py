"""A router that encodes: the units are atoms of a dictionary, and an input's sparse code says which answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.arguments import check_switch, check_tensor
from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable, ShapeError
from lazyneuron.core.numbers import real, whole
from lazyneuron.route.router import Route, Router, ones_like_route

_LARGEST = 1e100  # sums over passes of squares of larger rows overflow


def iterated_shrinkage(x: Tensor, dictionary: Tensor, *, penalty: float, steps: int, curvature: float) -> Tensor:
    """``argmin_z |x - z D|^2 / 2 + penalty |z|_1``, by so many steps of gradient and soft threshold from 0.

    Args:
        x: (..., features).
        dictionary: (atoms, features), D.
        penalty: of the codes' absolute values.
        steps: of the iteration; the first costs one product with the dictionary, each further one two.
        curvature: at least the largest eigenvalue of ``D D^T``, with which every step lowers the objective.

    Returns:
        (..., atoms).

    Source: Daubechies, Defrise, De Mol (2004); "ISTA" in Beck and Teboulle (2009).
    """
    code = F.softshrink(x @ dictionary.t() / curvature, penalty / curvature)
    for _ in range(steps - 1):
        rest = x - code @ dictionary
        code = F.softshrink(code + rest @ dictionary.t() / curvature, penalty / curvature)
    return code


class SparseCoding(Router):
    """The ``active`` atoms with the largest entries in an input's sparse code.

    Args:
        dictionary: (atoms, features); :func:`learn_dictionary` makes one.
        active: most atoms that answer.
        penalty: of the code's absolute values; a code is 0 when no atom's product with the input exceeds it.
        steps: of iterated shrinkage.
        weighted: weigh an atom by its entry of the code, otherwise by 1; 0 where the code has fewer entries.

    Attributes:
        curvature: largest eigenvalue of ``D D^T``, the inverse of a step's length.

    A ``state_dict`` carries dictionary, penalty, steps and ``weighted``, so that what loads it routes as the saved
    router did; a state with another ``active`` is refused.

    Raises:
        ConfigError: numbers that make no sense together, or a dictionary that holds only zeros, or NaN.
        DataError: the dictionary is no tensor of floats.

    Cost: ``2 atoms features (2 steps - 1)`` FLOPs an input, that is as many as a hash by ``atoms (2 steps - 1)``
        hyperplanes.

    Source: ours; sparse coding as the encoder of what the theory calls a data-dependent mask.
    """

    def __init__(
        self, dictionary: Tensor, *, active: int, penalty: float, steps: int = 5, weighted: bool = True
    ) -> None:
        check_tensor("A dictionary", dictionary, floats=True)
        if dictionary.ndim != 2 or not dictionary.numel():
            raise ConfigError(
                f"A dictionary has at least one atom and one feature, got shape {tuple(dictionary.shape)}."
            )
        width, features = dictionary.shape
        super().__init__(features, width, whole(active, "`active`", least=1, most=width))
        check_switch("`weighted`", weighted)
        self.penalty, self.steps = real(penalty, "`penalty`", least=0), whole(steps, "`steps`", least=1)
        self.weighted, self.curvature = weighted, _curvature_of(dictionary)
        self.register_buffer("dictionary", dictionary.detach().clone())
        self.dictionary: Tensor

    def get_extra_state(self) -> Tensor:
        """Penalty, steps, ``active`` and ``weighted`` as float64, for ``state_dict``."""
        return torch.tensor([self.penalty, self.steps, self.active, self.weighted], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take what :meth:`get_extra_state` gave, but for ``active``."""
        self.penalty, self.steps, self.weighted = float(state[0]), int(state[1]), bool(state[3])

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        reason = self._misfit(state_dict.get(f"{prefix}dictionary"), state_dict.get(f"{prefix}_extra_state"))
        if reason is not None:
            others[-1].append(reason)  # load_state_dict raises with what stands in this list
            return
        super()._load_from_state_dict(state_dict, prefix, *others)
        if not self.dictionary.is_meta:
            self.curvature = _curvature_of(self.dictionary)

    def _misfit(self, dictionary: Any, settings: Any) -> str | None:
        """Why a state cannot be taken, or None; missing tensors and other shapes are for torch to refuse."""
        if settings is not None:
            if not isinstance(settings, Tensor) or settings.shape != (4,):
                return "The settings of a SparseCoding are four numbers; pass the state of one."
            penalty, steps, active, _ = settings.double().tolist()
            if not (math.isfinite(penalty) and penalty >= 0 and steps >= 1 and steps.is_integer()):
                return f"A SparseCoding has no penalty of {penalty:g} and {steps:g} steps; pass the state of one."
            if active != self.active:
                return (
                    f"The state is of {active:g} active atoms, but this router has {self.active}; build it like that."
                )
        own = self.dictionary
        if isinstance(dictionary, Tensor) and dictionary.shape == own.shape and not dictionary.is_meta:
            try:
                _curvature_of(dictionary.to(own.dtype))
            except ConfigError as error:
                return str(error)
        return None

    def codes(self, x: Tensor) -> Tensor:
        """(..., features) to (..., atoms).

        Raises:
            DataError: the inputs are no tensor of floats, or their codes are not finite.
            ShapeError: inputs of another length.
        """
        self.check_inputs(x)
        check_tensor("An input", x, floats=True)
        codes = iterated_shrinkage(
            x, self.dictionary.to(x.dtype), penalty=self.penalty, steps=self.steps, curvature=self.curvature
        )
        # a compiled graph cannot branch on numbers
        if not torch.compiler.is_compiling() and not bool(codes.isfinite().all()):
            raise DataError("The inputs hold NaN, infinity or numbers too large to encode; drop or impute them first.")
        return codes

    def route(self, x: Tensor) -> Route:
        """The largest entries, largest first.

        Raises:
            DataError: as :meth:`codes`.
            ShapeError: inputs of another length.
        """
        codes = self.codes(x)
        indices = codes.abs().topk(self.active, dim=-1).indices
        values = codes.gather(-1, indices)
        return Route(indices, values if self.weighted else ones_like_route(indices, x) * (values != 0))

    def flops(self) -> int:
        """Of routing one input."""
        return 2 * self.width * self.features * (2 * self.steps - 1)


def _curvature_of(dictionary: Tensor) -> float:
    """Largest eigenvalue of ``D D^T``.

    Raises:
        ConfigError: it is 0 or not finite.
    """
    wide = dictionary.detach().double()
    norm = float(torch.linalg.matrix_norm(wide, 2)) if bool(wide.isfinite().all()) else math.nan
    if not 0 < norm * norm < math.inf:
        raise ConfigError(
            "A dictionary has at least one atom that is not zero, no NaN, and squares that are numbers; learn it anew."
        )
    return norm * norm


def learn_dictionary(x: Tensor, *, atoms: int, penalty: float, seed: int = 0) -> Tensor:
    """A dictionary of unit rows in which rows have sparse codes, by scikit-learn.

    Args:
        x: (rows, features).
        atoms: rows of the dictionary.
        penalty: of the codes' absolute values, as :class:`SparseCoding` takes it.
        seed: of beginning and batches, at most 2**32 - 1.

    Returns:
        (atoms, features) in the dtype of ``x``.

    Raises:
        ShapeError: not two axes.
        DataError: no tensor of floats, no rows or features, or rows that are not finite or above 1e100.
        ConfigError: no whole number of atoms, a penalty that is not positive, or a seed out of range.
        ImplUnavailable: scikit-learn is not installed.

    Source: Mairal, Bach, Ponce, Sapiro (2009), in scikit-learn's ``MiniBatchDictionaryLearning``.
    """
    check_tensor("What a dictionary is learned from", x, floats=True)
    if x.ndim != 2:
        raise ShapeError(f"A dictionary is learned from (rows, features), got {tuple(x.shape)}.")
    if not x.numel():
        raise DataError(f"A dictionary is learned from at least one row and one feature, got {tuple(x.shape)}.")
    wide = x.detach().double().cpu()
    if not float(wide.abs().max()) <= _LARGEST:
        raise DataError(
            f"A dictionary is learned from finite numbers of at most {_LARGEST:g}; drop, impute or scale the rows."
        )
    atoms, penalty = whole(atoms, "`atoms`", least=1), real(penalty, "`penalty`", above=0)
    seed = whole(seed, "`seed`", least=0, most=2**32 - 1)
    try:
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImplUnavailable("learn_dictionary needs scikit-learn; run pip install scikit-learn.") from error
    # all 20 passes: its own rule of stopping ends after one or two, long before the atoms have settled
    learner = MiniBatchDictionaryLearning(
        n_components=atoms,
        alpha=penalty,
        batch_size=256,
        max_iter=20,
        fit_algorithm="cd",
        random_state=seed,
        tol=0.0,
        max_no_improvement=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a batch's codes, which the next pass makes anew
        found = torch.from_numpy(learner.fit(wide.numpy()).components_)
    return F.normalize(found, dim=1).to(x)
