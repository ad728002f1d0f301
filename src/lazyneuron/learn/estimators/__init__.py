"""Learners in scikit-learn's contract; needs ``pip install 'lazyneuron[learn]'``."""

from lazyneuron.learn.estimators.classifier import LowDegreeClassifier
from lazyneuron.learn.estimators.features import WalshFeatures
from lazyneuron.learn.estimators.regressor import GramWarning, LowDegreeRegressor
from lazyneuron.learn.estimators.relu import SparseReluRegressor

__all__ = ["GramWarning", "LowDegreeClassifier", "LowDegreeRegressor", "SparseReluRegressor", "WalshFeatures"]
