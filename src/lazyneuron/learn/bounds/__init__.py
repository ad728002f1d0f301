"""Theorems as functions: each returns its value with assumptions, failure probability, source and vacuity."""

from lazyneuron.learn.bounds.bound import Bound
from lazyneuron.learn.bounds.eigenvalues import largest_eigenvalue_bound, least_eigenvalue_bound
from lazyneuron.learn.bounds.rademacher import Class, generalization, lsjgh_constant, majority_gap, rademacher
from lazyneuron.learn.bounds.regression import (
    Batches,
    agnostic_excess,
    batches_for,
    deviation_lmn,
    gram_failure,
    risk_lmn,
    risk_ols,
    samples_lmn,
    samples_ols,
    typical_risk_ols,
)
from lazyneuron.learn.bounds.sensitivity import as_adkm, as_mean_square, as_product, as_sparse, phi
from lazyneuron.learn.bounds.tails import (
    active_phi,
    degree_adkm,
    degree_for,
    noise_bound,
    tail_bound,
    tail_bound_sensitivity,
    tail_bound_width,
)

__all__ = [
    "Batches",
    "Bound",
    "Class",
    "active_phi",
    "agnostic_excess",
    "as_adkm",
    "as_mean_square",
    "as_product",
    "as_sparse",
    "batches_for",
    "degree_adkm",
    "degree_for",
    "deviation_lmn",
    "generalization",
    "gram_failure",
    "largest_eigenvalue_bound",
    "least_eigenvalue_bound",
    "lsjgh_constant",
    "majority_gap",
    "noise_bound",
    "phi",
    "rademacher",
    "risk_lmn",
    "risk_ols",
    "samples_lmn",
    "samples_ols",
    "tail_bound",
    "tail_bound_sensitivity",
    "tail_bound_width",
    "typical_risk_ols",
]
