"""Quality figures against cases worked by hand and against scipy and scikit-learn."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from lazyneuron.core.errors import ShapeError
from lazyneuron.experiments.demo.quality import quality


def angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def test_equal_embeddings_agree_whatever_their_length():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    q = quality(x * 3, x)
    assert (q.mean_cosine, q.rank_correlation) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (q.top1_agreement, q.n_lines) == (1.0, 9)


def test_by_hand():
    # nearest in the reference: 0-10, 10-0, 25-10, 63-25; the third line moved from 25 to 50 degrees
    q = quality(angles(0, 10, 50, 63), angles(0, 10, 25, 63))
    assert q.mean_cosine == pytest.approx((3 + math.cos(math.radians(25))) / 4)
    assert q.top1_agreement == pytest.approx(3 / 4)
    gaps, moved = [10, 25, 63, 15, 53, 38], [10, 50, 63, 40, 53, 13]
    assert q.rank_correlation == pytest.approx(spearmanr(gaps, moved).statistic)


def test_opposite_embeddings():
    x = angles(0, 10, 25, 60)
    q = quality(-x, x)
    assert q.mean_cosine == pytest.approx(-1.0)
    assert q.top1_agreement == 1.0  # similarities among themselves are the same
    assert q.rank_correlation == pytest.approx(1.0)


def test_against_other_libraries():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(80, 6, generator=g)
    y = x + 0.5 * torch.randn(80, 6, generator=g)
    q = quality(y, x)

    def nearest(v):
        return NearestNeighbors(metric="cosine").fit(v.numpy()).kneighbors(n_neighbors=1, return_distance=False)[:, 0]

    assert q.top1_agreement == pytest.approx((nearest(x) == nearest(y)).mean())
    upper = torch.triu_indices(80, 80, offset=1)

    def similar(v):
        n = torch.nn.functional.normalize(v.double(), dim=-1)
        return (n @ n.T)[upper[0], upper[1]]

    assert q.rank_correlation == pytest.approx(spearmanr(similar(x), similar(y)).statistic, abs=1e-9)
    assert 0.3 < q.rank_correlation < 0.95


def test_ties_share_their_mean_rank():
    x = torch.eye(5)
    y = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    assert math.isnan(quality(y, x).rank_correlation)
    x[0, 1] = 1.0
    assert math.isfinite(quality(y, x).rank_correlation)


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((2, 3), (2, 3)), ((4, 3), (4, 2)), ((12,), (12,))])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match="at least 3 rows"):
        quality(torch.ones(shapes[0]), torch.ones(shapes[1]))
