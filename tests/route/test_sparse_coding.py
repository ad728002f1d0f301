"""Sparse codes against closed forms and scikit-learn's solver, and the router made of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.route import DSM, Route, SparseCoding, iterated_shrinkage, learn_dictionary
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


def same(a: Route, b: Route) -> bool:
    return torch.equal(a.indices, b.indices) and torch.equal(a.weights, b.weights)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_loaded_router_routes_as_the_saved_one(weighted: bool) -> None:
    saved = SparseCoding(10 * atoms(12, 5), active=4, penalty=0.3, steps=20, weighted=weighted)
    loaded = SparseCoding(atoms(12, 5, seed=8), active=4, penalty=0.7, steps=3)
    x = draw(30, 5, seed=3)
    state = DSM(saved, torch.zeros(1, 12), activation="one").state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    loaded(x)
    DSM(loaded, torch.zeros(1, 12), activation="one").load_state_dict(state)
    assert same(loaded(x), saved(x)) and loaded.flops() == saved.flops()
    # by brute force; with the curvature of atoms that are not scaled, the iteration runs off to infinity
    largest = float(torch.linalg.eigvalsh(saved.dictionary @ saved.dictionary.t()).max())
    assert loaded.curvature == pytest.approx(largest) and float(loaded(x).weights.abs().max()) < 2
    assert same(copy.deepcopy(loaded)(x), saved(x))


def test_a_saved_folder_brings_the_router_back(tmp_path: Path) -> None:
    def model(scale: float, steps: int) -> nn.Module:
        return nn.Sequential(SparseCoding(scale * atoms(12, 5).float(), active=4, penalty=0.3, steps=steps))

    saved, loaded = model(10, 20), model(1, 2)
    lazy.save(saved, tmp_path)
    lazy.load_(loaded, tmp_path)
    x = draw(30, 5, seed=3).float()
    assert same(loaded(x), saved(x))


def test_only_the_dictionary_of_a_state_brings_its_curvature() -> None:
    router, x = SparseCoding(atoms(12, 5), active=4, penalty=0.3, steps=20), draw(30, 5, seed=3)
    want = SparseCoding(10 * atoms(12, 5), active=4, penalty=0.3, steps=20)
    router.load_state_dict({"dictionary": want.dictionary}, strict=False)
    assert same(router(x), want(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dictionary": torch.full((12, 5), math.nan)}, "no NaN"),
        ({"dictionary": torch.zeros(12, 5)}, "not zero"),
        ({"dictionary": torch.ones(12, 6)}, "size mismatch"),
        ({"dictionary": torch.ones(60)}, "size mismatch"),
        ({"_extra_state": torch.tensor([0.1, 5, 3, 1])}, "state is of 3 active atoms, but this router has 4"),
        ({"_extra_state": torch.tensor([math.nan, 5, 4, 1])}, "no penalty of nan"),
        ({"_extra_state": torch.tensor([0.1, 2.5, 4, 1])}, "2.5 steps"),
        ({"_extra_state": torch.tensor([1, 0, 4, 1])}, "0 steps"),
        ({"dictionary": torch.full((12, 5), 1e200, dtype=torch.float64)}, "squares that are numbers"),
        ({"_extra_state": torch.zeros(3)}, "four numbers"),
        ({"_extra_state": None}, "Missing key"),
    ],
)
def test_states_that_do_not_fit_change_nothing(change: dict[str, Tensor | None], said: str) -> None:
    router, x = SparseCoding(atoms(12, 5), active=4, penalty=0.3), draw(30, 5, seed=3)
    before = router(x)
    state = {**router.state_dict(), **change}
    with pytest.raises(RuntimeError, match=said):
        router.load_state_dict({key: value for key, value in state.items() if value is not None})
    assert same(router(x), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dictionary": torch.zeros(3, 2)}, "not zero"),
        ({"dictionary": torch.full((3, 2), math.nan)}, "no NaN"),
        ({"dictionary": torch.full((3, 2), 1e200, dtype=torch.float64)}, "squares that are numbers"),
        ({"dictionary": torch.ones(3)}, r"one feature, got shape \(3,\)"),
        ({"dictionary": torch.ones(0, 2)}, r"one feature, got shape \(0, 2\)"),
        *[({"active": wrong}, "^`active` is a whole number") for wrong in (2.5, True, "1", None, math.nan, 0, 4)],
        *[({"steps": wrong}, "^`steps` is a whole number") for wrong in (2.5, True, "1", None, math.nan, 0)],
        *[
            ({"penalty": p}, "^`penalty` is a .*number")
            for p in (-0.1, "a", None, np.ones(2), True, math.nan, math.inf)
        ],
        *[({"weighted": wrong}, "^`weighted` is True or False") for wrong in ("no", 1, None)],
    ],
)
def test_options_of_a_router_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SparseCoding(**{"dictionary": atoms(3, 2), "active": 1, "penalty": 0.1, **options})


NO_TENSORS = (None, [[1.0, 2.0]], np.ones((3, 2)), 1.0)


@pytest.mark.parametrize("wrong", [*NO_TENSORS, torch.ones(3, 2, dtype=torch.int64)])
def test_a_dictionary_is_a_tensor_of_floats(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"^A dictionary is a (torch\.Tensor|tensor of floats), got "):
        SparseCoding(wrong, active=1, penalty=0.1)


@pytest.mark.parametrize("way", [SparseCoding.__call__, SparseCoding.route, SparseCoding.codes, SparseCoding.mask])
def test_inputs_that_have_no_route(way: Callable[[SparseCoding, Any], Any]) -> None:
    router = SparseCoding(atoms(3, 2), active=1, penalty=0.1)
    for wrong in NO_TENSORS:
        with pytest.raises(DataError, match=r"^An input is a torch\.Tensor, got "):
            way(router, wrong)
    for dtype in (torch.int64, torch.bool):
        with pytest.raises(DataError, match=f"^An input is a tensor of floats, got {dtype}"):
            way(router, torch.ones(4, 2, dtype=dtype))
    for shape in ((4, 3), (), (2, 1)):
        with pytest.raises(ShapeError, match="takes inputs of length 2, got shape"):
            way(router, torch.ones(shape))
    for number in (math.nan, math.inf, -math.inf, 1.7e308):
        with pytest.raises(DataError, match=r"^The inputs hold NaN, infinity or numbers too large to encode"):
            way(router, torch.tensor([[1.0, 1.0], [number, number]], dtype=torch.float64))
    assert way(router, torch.ones(0, 2)) is not None


@pytest.mark.parametrize(
    ("rows", "options", "error", "said"),
    [
        *[(wrong, {}, DataError, r"is a torch\.Tensor, got ") for wrong in NO_TENSORS],
        (torch.randint(0, 5, (30, 5)), {}, DataError, r"is a tensor of floats, got torch\.int64"),
        (torch.ones(30, 5, dtype=torch.bool), {}, DataError, r"is a tensor of floats, got torch\.bool"),
        (torch.ones(3), {}, ShapeError, "learned from"),
        (torch.ones(3, 0), {}, DataError, r"one row and one feature, got \(3, 0\)"),
        (torch.ones(0, 2), {}, DataError, r"one row and one feature, got \(0, 2\)"),
        (torch.full((3, 2), torch.inf), {}, DataError, "finite"),
        (torch.full((3, 2), torch.nan), {}, DataError, "finite"),
        (1e200 * draw(30, 5), {}, DataError, r"at most 1e\+100"),
        *[(draw(9, 2), {"atoms": wrong}, ConfigError, "^`atoms` is a whole") for wrong in (2.5, "3", True, 0, None)],
        *[(draw(9, 2), {"seed": s}, ConfigError, "^`seed` is a whole") for s in ("x", -1, 1.5, None, True, 2**32)],
        *[
            (draw(9, 2), {"penalty": wrong}, ConfigError, "^`penalty` is a .*number")
            for wrong in (0.0, -1, "a", None, math.nan, math.inf, True)
        ],
    ],
)
def test_what_no_dictionary_is_learned_from(rows: Any, options: dict[str, Any], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        learn_dictionary(rows, **{"atoms": 2, "penalty": 0.1, **options})


def test_rows_just_below_the_largest_are_learned_from() -> None:
    found = learn_dictionary(1e99 * draw(300, 5), atoms=4, penalty=0.1)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
