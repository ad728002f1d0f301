"""Routing as estimators with scikit-learn's contract. Importing this package imports scikit-learn."""

from lazyneuron.route.estimators.files import load_estimator, save_estimator
from lazyneuron.route.estimators.lsh import LSHClassifier, LSHRegressor
from lazyneuron.route.estimators.sparse_network import SparseNetworkRegressor

__all__ = ["LSHClassifier", "LSHRegressor", "SparseNetworkRegressor", "load_estimator", "save_estimator"]
