"""L1 polynomial regression: the least sum of absolute residuals, by a linear program."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.reference import columns

_ENTRIES = 10_000_000


def absolute(design: WalshDesign, y: Array) -> Solution:
    """Minimise ``|y - Phi c|_1``, which adversarial labels move less than squares.

    Raises:
        ConfigError: the linear program is too large.
        DataError: it could not be solved.

    Source: Kalai, Klivans, Mansour, Servedio (2008).
    """
    from scipy.optimize import linprog

    if design.m * design.size > _ENTRIES:
        raise ConfigError(
            f"L1 regression is a linear program with {design.m} x {design.size} entries, at most {_ENTRIES} are "
            "allowed; "
            "lower the degree, take fewer rows, or solver='ols'."
        )
    phi = columns(design.x, design.degree)
    m, size = phi.shape
    cost = np.concatenate([np.zeros(size), np.ones(2 * m)])
    identity = np.eye(m)
    bounds = [(None, None)] * size + [(0, None)] * (2 * m)
    from scipy.sparse import csr_array, hstack

    equal = hstack([csr_array(phi), csr_array(identity), csr_array(-identity)])
    found = linprog(cost, A_eq=equal, b_eq=y, bounds=bounds, method="highs")
    if not found.success:
        raise DataError(f"L1 regression could not be solved ({found.message}); take solver='ols'.")
    return Solution(coefficients=np.asarray(found.x[:size]), gram=None, method="least absolute residuals")
