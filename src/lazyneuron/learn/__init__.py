"""Learning sparsely activated networks: the class, its Fourier analysis, its certificates, and its learners."""

from lazyneuron.learn.audits import AuditReport, LayerAudit, audit
from lazyneuron.learn.certificates import Ladder, certificates
from lazyneuron.learn.krawtchouk import krawtchouk_table, walsh_kernel
from lazyneuron.learn.network import SparseActivationNet
from lazyneuron.learn.queries import (
    Estimate,
    estimate_average_sensitivity,
    estimate_influences,
    estimate_noise_sensitivity,
    goldreich_levin,
)
from lazyneuron.learn.samples import DegreeWeights, degree_weights_from_samples
from lazyneuron.learn.sparsity import SparsityReport, verify_sparsity
from lazyneuron.learn.walsh import average_sensitivity, influences, noise_sensitivity, spectrum, tail, weight_by_degree
from lazyneuron.ops.boolean.walsh import fwht

__all__ = [
    "AuditReport",
    "DegreeWeights",
    "Estimate",
    "Ladder",
    "LayerAudit",
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
    "noise_sensitivity",
    "spectrum",
    "tail",
    "verify_sparsity",
    "walsh_kernel",
    "weight_by_degree",
]
