"""Sparse codes against closed forms and scikit-learn's solver, and the router made of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.route import DSM, SparseCoding, iterated_shrinkage, learn_dictionary
from lazyneuron.route.least_squares import solve_top

pytest.importorskip("sklearn")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def atoms(count: int, features: int, *, seed: int = 1) -> Tensor:
    return F.normalize(draw(count, features, seed=seed), dim=1)


def objective(x: Tensor, code: Tensor, dictionary: Tensor, penalty: float) -> Tensor:
    return (x - code @ dictionary).square().sum(1) / 2 + penalty * code.abs().sum(1)


def test_orthonormal_atoms_are_done_in_one_step() -> None:
    d = torch.linalg.qr(draw(6, 6))[0]
    x = draw(20, 6, seed=2)
    want = (x @ d.t()).sign() * ((x @ d.t()).abs() - 0.3).clamp(min=0)
    for steps in (1, 4):
        torch.testing.assert_close(iterated_shrinkage(x, d, penalty=0.3, steps=steps, curvature=1.0), want)


def test_many_steps_end_where_coordinate_descent_does() -> None:
    from sklearn.decomposition import sparse_encode

    d, x, penalty = atoms(15, 6), draw(30, 6, seed=2), 0.4
    want = torch.from_numpy(
        sparse_encode(x.numpy(), d.numpy(), algorithm="lasso_cd", alpha=penalty, max_iter=20000, positive=False)
    )
    router = SparseCoding(d, active=3, penalty=penalty, steps=4000)
    got = router.codes(x)
    limit = objective(x, want, d, penalty)
    torch.testing.assert_close(objective(x, got, d, penalty), limit, rtol=1e-4, atol=1e-5)
    few = [
        objective(x, SparseCoding(d, active=3, penalty=penalty, steps=s).codes(x), d, penalty) for s in (1, 2, 5, 20)
    ]
    assert all(bool((b <= a + 1e-12).all()) for a, b in zip(few, [*few[1:], limit + 1e-4], strict=True))


def test_a_route_is_the_largest_entries_of_the_code() -> None:
    router = SparseCoding(atoms(12, 5), active=4, penalty=0.5, steps=7)
    x = draw(3, 9, 5, seed=3)
    indices, weights = router(x)
    for row, at, w in zip(router.codes(x).flatten(0, 1), indices.flatten(0, 1), weights.flatten(0, 1), strict=True):
        order = sorted(range(12), key=lambda k: -abs(float(row[k])))[:4]
        assert sorted(abs(float(row[k])) for k in order) == pytest.approx(sorted(w.abs().tolist()))
        assert torch.equal(row[at], w)
    plain = SparseCoding(router.dictionary, active=4, penalty=0.5, steps=7, weighted=False)(x).weights
    assert torch.equal(plain, (weights != 0).double()) and 0 < float(plain.mean()) < 1
    assert router.flops() == 2 * 12 * 5 * 13
    assert torch.equal(SparseCoding(router.dictionary, active=4, penalty=1e9).mask(x), torch.zeros(3, 9, 12).double())


def test_the_atoms_of_sparse_mixtures_are_found_again() -> None:
    true = atoms(8, 12, seed=4)
    g = torch.Generator().manual_seed(5)
    code = torch.zeros(3000, 8, dtype=torch.float64)
    chosen = torch.rand(3000, 8, generator=g).topk(2, dim=1).indices
    sign = (2 * torch.randint(0, 2, (3000, 2), generator=g) - 1).double()
    code.scatter_(1, chosen, sign * (1 + torch.rand(3000, 2, generator=g, dtype=torch.float64)))
    found = learn_dictionary(code @ true, atoms=8, penalty=0.5, seed=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(8, dtype=torch.float64))
    nearest = (true @ found.t()).abs().max(1).values
    assert float(nearest.min()) > 0.95
    assert float((true @ atoms(8, 12, seed=9).t()).abs().max(1).values.min()) < 0.8  # what chance would find


def test_a_model_on_codes_is_fitted_in_closed_form() -> None:
    router = SparseCoding(torch.eye(5, dtype=torch.float64), active=5, penalty=0.0, steps=1)
    x = draw(400, 5, seed=6)
    truth = torch.tensor([[1.0], [-2], [0], [3], [0.5]], dtype=torch.float64)
    top, bias = solve_top(DSM(router, torch.zeros(1, 5), activation="one"), x, x @ truth + 7, ridge=1e-10)
    torch.testing.assert_close(top.t(), truth, atol=1e-5, rtol=1e-5)
    assert float(bias) == pytest.approx(7, abs=1e-5)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        SparseCoding(atoms(3, 2), active=1, penalty=0.1, steps=0)
    with pytest.raises(ConfigError, match="penalty is not negative"):
        SparseCoding(atoms(3, 2), active=1, penalty=-0.1)
    with pytest.raises(ConfigError, match="not zero"):
        SparseCoding(torch.zeros(3, 2), active=1, penalty=0.1)
    with pytest.raises(ShapeError, match="learned from"):
        learn_dictionary(torch.ones(3), atoms=2, penalty=0.1)
    with pytest.raises(DataError, match="finite"):
        learn_dictionary(torch.full((3, 2), torch.inf), atoms=2, penalty=0.1)
    with pytest.raises(ConfigError, match="positive penalty"):
        learn_dictionary(torch.ones(3, 2), atoms=2, penalty=0.0)
