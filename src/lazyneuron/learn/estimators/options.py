"""What the options of the low-degree estimators may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lazyneuron.core.errors import ConfigError

if TYPE_CHECKING:
    from lazyneuron.learn.estimators.regressor import LowDegreeRegressor

SOLVERS = ("auto", "ols", "ridge", "lmn", "lasso", "threshold", "kernel", "l1")
_RULES = ("auto", "cv", "spectrum", "certificate")
_PENALISED = ("auto", "ridge", "lasso", "threshold", "kernel")


def check_options(of: LowDegreeRegressor) -> None:
    """Refuse options without meaning and contradictions.

    Raises:
        ConfigError: there is one.
    """
    if of.solver not in SOLVERS:
        raise ConfigError(f"A solver is one of {', '.join(SOLVERS)}, got {of.solver!r}.")
    if isinstance(of.degree, str) and of.degree not in _RULES:
        raise ConfigError(f"A degree is a whole number or one of {', '.join(_RULES)}, got {of.degree!r}.")
    if of.alpha is not None and not (math.isfinite(of.alpha) and of.alpha >= 0):
        raise ConfigError(f"alpha is a finite number of at least 0, got {of.alpha}.")
    if of.alpha and of.solver not in _PENALISED:
        raise ConfigError(f"alpha = {of.alpha} contradicts solver={of.solver!r}, which takes no penalty; leave it out.")
    certified = [name for name in ("sparsity", "norm", "error") if getattr(of, name) is None]
    if of.degree == "certificate" and certified:
        raise ConfigError(f"degree='certificate' needs sparsity, norm and error; {', '.join(certified)} is missing.")
    if of.cv < 2:
        raise ConfigError(f"Cross-validation has at least 2 folds, got cv = {of.cv}.")
    if not of.memory_limit_gib > 0:
        raise ConfigError(f"memory_limit_gib is above 0, got {of.memory_limit_gib}.")
