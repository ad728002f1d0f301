"""Why activations become sparse: gradients, flat minima and spectra."""

from lazyneuron.explain.flatness import (
    IdentityCheck,
    augmented_flatness,
    density_identity,
    effective_gradient,
    feature_gradient,
)
from lazyneuron.explain.marchenko_pastur import GramTracker, SpectrumFit, marchenko_pastur, stieltjes_bound
from lazyneuron.explain.run import BlockSpectrum, ExplainReport, explain
from lazyneuron.explain.spectrum import SpectralReport, participation_ratio, spectral_concentration
from lazyneuron.explain.sums import BlockExplanation

__all__ = [
    "BlockExplanation",
    "BlockSpectrum",
    "ExplainReport",
    "GramTracker",
    "IdentityCheck",
    "SpectralReport",
    "SpectrumFit",
    "augmented_flatness",
    "density_identity",
    "effective_gradient",
    "explain",
    "feature_gradient",
    "marchenko_pastur",
    "participation_ratio",
    "spectral_concentration",
    "stieltjes_bound",
]
