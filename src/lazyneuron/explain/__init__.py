"""Why activations become sparse: gradients, flat minima and spectra.

For users and for experiments. Files about tensors (`flatness.py`, `spectrum.py`, `diagonality.py` ...) know no model;
`report.py`, `robustness.py` and `curvature.py` run one, borrowed. A new statistic of a block goes into `sums.py`.
"""

from lazyneuron.explain.block_explanation import BlockExplanation
from lazyneuron.explain.covering import Covering, CoveringSums, cover_attack
from lazyneuron.explain.curvature import Sharpness, sharpness
from lazyneuron.explain.diagonality import Diagonality, diagonality
from lazyneuron.explain.flatness import (
    IdentityCheck,
    SquareCheck,
    augmented_flatness,
    density_identity,
    effective_gradient,
    feature_gradient,
    gated_density_identity,
    hidden_square_identity,
)
from lazyneuron.explain.gradient_histogram import GradientHistogram
from lazyneuron.explain.marchenko_pastur import GramTracker, SpectrumFit, marchenko_pastur, stieltjes_bound
from lazyneuron.explain.report import BlockSpectrum, ExplainReport, explain
from lazyneuron.explain.robustness import Attack, Robustness, attack_features, attack_inputs
from lazyneuron.explain.spectrum import SpectralReport, participation_ratio, spectral_concentration

__all__ = [
    "Attack",
    "BlockExplanation",
    "BlockSpectrum",
    "Covering",
    "CoveringSums",
    "Diagonality",
    "ExplainReport",
    "GradientHistogram",
    "GramTracker",
    "IdentityCheck",
    "Robustness",
    "Sharpness",
    "SpectralReport",
    "SpectrumFit",
    "SquareCheck",
    "attack_features",
    "attack_inputs",
    "augmented_flatness",
    "cover_attack",
    "density_identity",
    "diagonality",
    "effective_gradient",
    "explain",
    "feature_gradient",
    "gated_density_identity",
    "hidden_square_identity",
    "marchenko_pastur",
    "participation_ratio",
    "sharpness",
    "spectral_concentration",
    "stieltjes_bound",
]
