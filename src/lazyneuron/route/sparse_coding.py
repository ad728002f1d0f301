"""A router that encodes: the units are atoms of a dictionary, and an input's sparse code says which answer."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable, ShapeError
from lazyneuron.route.router import Route, Router, ones_like_route


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

    Raises:
        ConfigError: numbers that make no sense together, or a dictionary of zeros.

    Cost: ``2 atoms features (2 steps - 1)`` FLOPs an input, that is as many as a hash by ``atoms (2 steps - 1)``
        hyperplanes.

    Source: ours; sparse coding as the encoder of what the theory calls a data-dependent mask.
    """

    def __init__(
        self, dictionary: Tensor, *, active: int, penalty: float, steps: int = 5, weighted: bool = True
    ) -> None:
        if dictionary.ndim != 2 or not (penalty >= 0 and math.isfinite(penalty)) or steps < 1:
            raise ConfigError(
                f"A dictionary has two axes, the penalty is not negative, and there is at least one step; got shape "
                f"{tuple(dictionary.shape)}, {penalty} and {steps}."
            )
        super().__init__(dictionary.shape[1], dictionary.shape[0], active)
        wide = dictionary.detach().double()
        curvature = float(torch.linalg.matrix_norm(wide, 2)) ** 2
        if not (curvature > 0 and math.isfinite(curvature)):
            raise ConfigError("A dictionary has at least one atom that is not zero, and no NaN; learn it anew.")
        self.penalty, self.steps, self.weighted, self.curvature = penalty, steps, weighted, curvature
        self.register_buffer("dictionary", dictionary.detach().clone())
        self.dictionary: Tensor

    def codes(self, x: Tensor) -> Tensor:
        """(..., features) to (..., atoms)."""
        return iterated_shrinkage(
            x, self.dictionary.to(x.dtype), penalty=self.penalty, steps=self.steps, curvature=self.curvature
        )

    def route(self, x: Tensor) -> Route:
        """The largest entries, largest first."""
        codes = self.codes(x)
        indices = codes.abs().topk(self.active, dim=-1).indices
        values = codes.gather(-1, indices)
        return Route(indices, values if self.weighted else ones_like_route(indices, x) * (values != 0))

    def flops(self) -> int:
        """Of routing one input."""
        return 2 * self.width * self.features * (2 * self.steps - 1)


def learn_dictionary(x: Tensor, *, atoms: int, penalty: float, seed: int = 0) -> Tensor:
    """A dictionary of unit rows in which rows have sparse codes, by scikit-learn.

    Args:
        x: (rows, features).
        atoms: rows of the dictionary.
        penalty: of the codes' absolute values, as :class:`SparseCoding` takes it.
        seed: of beginning and batches.

    Returns:
        (atoms, features) in the dtype of ``x``.

    Raises:
        ShapeError: not two axes.
        DataError: no rows, or rows that are not finite.
        ConfigError: no atom, or a penalty that is not positive.
        ImplUnavailable: scikit-learn is not installed.

    Source: Mairal, Bach, Ponce, Sapiro (2009), in scikit-learn's ``MiniBatchDictionaryLearning``.
    """
    if x.ndim != 2:
        raise ShapeError(f"A dictionary is learned from (rows, features), got {tuple(x.shape)}.")
    if not len(x) or not bool(x.isfinite().all()):
        raise DataError("A dictionary is learned from at least one row of finite numbers; drop or impute the others.")
    if atoms < 1 or not (penalty > 0 and math.isfinite(penalty)):
        raise ConfigError(f"A dictionary has at least one atom and a positive penalty, got {atoms} and {penalty}.")
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
        found = torch.from_numpy(learner.fit(x.detach().double().numpy()).components_)
    return F.normalize(found, dim=1).to(x.dtype)
