"""scikit-learn's own checks."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from lazyneuron.route.estimators import LSHClassifier, LSHRegressor, SparseNetworkRegressor

ESTIMATORS = [
    LSHRegressor(),
    LSHRegressor(tables=3, directions="orthogonal"),
    LSHClassifier(),
    SparseNetworkRegressor(width=256, active=32),
]


@parametrize_with_checks(ESTIMATORS)
def test_the_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def test_in_a_pipeline_and_a_grid_search() -> None:
    import numpy as np
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).uniform(-1, 1, (600, 3))
    y = np.abs(x[:, 0]) + x[:, 1]
    pipeline = make_pipeline(StandardScaler(), LSHRegressor())
    search = GridSearchCV(pipeline, {"lshregressor__tables": [1, 4], "lshregressor__degree": [0, 1]}, cv=3).fit(x, y)
    assert search.best_params_ == {"lshregressor__tables": 4, "lshregressor__degree": 1}
    assert search.score(x, y) > 0.95
