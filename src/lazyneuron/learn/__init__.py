"""Sparsely activated networks as a class of functions: Fourier analysis, sensitivity bounds, theorems, learners.

For theorists and for two-valued data: `bounds` holds the theorems, `instances` networks with known answers,
`estimators` and `solvers` the learners (extra [learn]). Safe to add: a bound, an instance, a solver; proofs go to docs.
"""

from lazyneuron.learn.audit_report import AuditReport, LayerAudit
from lazyneuron.learn.audits import audit
from lazyneuron.learn.krawtchouk import krawtchouk_table, walsh_kernel
from lazyneuron.learn.most_active import MostActive, most_active
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.queries import (
    Estimate,
    estimate_average_sensitivity,
    estimate_influences,
    estimate_noise_sensitivity,
    goldreich_levin,
)
from lazyneuron.learn.samples import DegreeWeights, degree_weights_from_samples
from lazyneuron.learn.sensitivity import Ladder, SensitivityBounds, certificates, sensitivity_bounds
from lazyneuron.learn.sparsity import SparsityReport, verify_sparsity
from lazyneuron.learn.walsh import average_sensitivity, influences, noise_sensitivity, spectrum, tail, weight_by_degree
from lazyneuron.ops.boolean.operators import fwht

__all__ = [
    "AuditReport",
    "DegreeWeights",
    "Estimate",
    "Ladder",
    "LayerAudit",
    "MostActive",
    "SensitivityBounds",
    "SparseActivationNet",
    "SparsityReport",
    "audit",
    "average_sensitivity",
    "certificates",
    "degree_weights_from_samples",
    "estimate_average_sensitivity",
    "estimate_influences",
    "estimate_noise_sensitivity",
    "fwht",
    "goldreich_levin",
    "influences",
    "krawtchouk_table",
    "most_active",
    "noise_sensitivity",
    "sensitivity_bounds",
    "spectrum",
    "tail",
    "verify_sparsity",
    "walsh_kernel",
    "weight_by_degree",
]
