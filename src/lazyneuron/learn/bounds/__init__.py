"""Theorems as functions: each returns its value with assumptions, failure probability, source and vacuity."""

from lazyneuron.learn.bounds.averaging import deviation_lmn, risk_lmn, samples_lmn
from lazyneuron.learn.bounds.bound import Bound
from lazyneuron.learn.bounds.eigenvalues import largest_eigenvalue_bound, least_eigenvalue_bound
from lazyneuron.learn.bounds.hardness import (
    Hardness,
    junta_conjecture,
    junta_hardness,
    parity_hardness,
    parity_queries,
    rounding_conjecture,
    rounding_hardness,
)
from lazyneuron.learn.bounds.majority import majority_gap
from lazyneuron.learn.bounds.published import noise_adkm, samples_adkm
from lazyneuron.learn.bounds.rademacher import Class, generalization, lsjgh_constant, rademacher
from lazyneuron.learn.bounds.regression import (
    Batches,
    agnostic_excess,
    batches_for,
    gram_failure,
    risk_ols,
    samples_ols,
    typical_risk_ols,
)
from lazyneuron.learn.bounds.sensitivity import as_adkm, as_mean_square, as_mostly_sparse, as_product, as_sparse, phi
from lazyneuron.learn.bounds.tails import (
    active_phi,
    degree_adkm,
    degree_for,
    noise_bound,
    tail_bound,
    tail_bound_sensitivity,
    tail_bound_width,
    tail_from_noise,
)
from lazyneuron.learn.bounds.uniform_convergence import samples_adkm_statistical, samples_erm

__all__ = [
    "Batches",
    "Bound",
    "Class",
    "Hardness",
    "active_phi",
    "agnostic_excess",
    "as_adkm",
    "as_mean_square",
    "as_mostly_sparse",
    "as_product",
    "as_sparse",
    "batches_for",
    "degree_adkm",
    "degree_for",
    "deviation_lmn",
    "generalization",
    "gram_failure",
    "junta_conjecture",
    "junta_hardness",
    "largest_eigenvalue_bound",
    "least_eigenvalue_bound",
    "lsjgh_constant",
    "majority_gap",
    "noise_adkm",
    "noise_bound",
    "parity_hardness",
    "parity_queries",
    "phi",
    "rademacher",
    "risk_lmn",
    "risk_ols",
    "rounding_conjecture",
    "rounding_hardness",
    "samples_adkm",
    "samples_adkm_statistical",
    "samples_erm",
    "samples_lmn",
    "samples_ols",
    "tail_bound",
    "tail_bound_sensitivity",
    "tail_bound_width",
    "tail_from_noise",
    "typical_risk_ols",
]
