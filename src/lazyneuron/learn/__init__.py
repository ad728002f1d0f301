"""Learning sparsely activated networks: the class, its Fourier analysis, its certificates, and its learners."""

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
from lazyneuron.learn.walsh import (
    average_sensitivity,
    fwht,
    influences,
    noise_sensitivity,
    spectrum,
    tail,
    weight_by_degree,
)

__all__ = [
    "DegreeWeights",
    "Estimate",
    "Ladder",
    "SparseActivationNet",
    "SparsityReport",
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
