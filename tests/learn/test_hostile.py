"""Every argument of every public function of `learn` with values that it cannot take, or that are too large for floats.

The answer is a number that is documented, or one sentence of an error of ours; never a warning or an error of Python's.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest

import lazyneuron.learn as learn
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.learn import bounds, instances
from lazyneuron.learn.bounds import Bound, Class, Hardness

WRONG = (None, "3", True, float("nan"), float("inf"), -1, 2.5, 10**400, 2**2000, np.int8(100), 1e-200, 1e200, 5e-324)
NEVER = (None, "3", float("nan"), 10**400)  # that no number of the table may be
CLASS = {"k": 2, "norm": 1.0, "bias": 0.5, "n": 5, "s": 20}
NET = instances.parity_net(3).net
REPORT = learn.verify_sparsity(NET)
CODE = instances.hamming_code(3)
POINTS = learn.cube.points(3)
CUBE = np.arange(8.0)


def first(x: np.ndarray) -> np.ndarray:
    return x[:, 0] + 0.5 * x[:, 1]


# for each name a call that works; `optional` are those for which None is an answer, too
WORKS: dict[str, tuple[Callable, dict, tuple[str, ...]]] = {
    "active_phi": (bounds.active_phi, {"norms": [1.0, 2.0], "shares": [0.5, 0.1]}, ()),
    "agnostic_excess": (bounds.agnostic_excess, {"best": 0.1, "tail": 0.1, "features": 5, "rows": 100}, ()),
    "as_adkm": (bounds.as_adkm, CLASS, ()),
    "as_mean_square": (bounds.as_mean_square, {"mean_square_active": 2.0, "norm": 1.0}, ()),
    "as_mostly_sparse": (bounds.as_mostly_sparse, {"k": 2, "norm": 1.0, "s": 20, "exceeding": 0.1}, ()),
    "as_product": (bounds.as_product, {"k": 2, "norm": 1.0, "means": [0.1]}, ("means",)),
    "as_sparse": (bounds.as_sparse, {"k": 2, "norm": 1.0, "s": 20}, ("s",)),
    "batches_for": (bounds.batches_for, {"features": 5, "delta": 0.1, "residual": 0.1, "error": 0.1}, ()),
    "Class": (bounds.Class, {**CLASS, "radius": 1.0}, ()),
    "degree_adkm": (bounds.degree_adkm, {"error": 0.1, **CLASS}, ()),
    "degree_for": (bounds.degree_for, {"error": 0.1, "k": 2, "norm": 1.0, "n": 9, "s": 20}, ("n", "s")),
    "degree_for, no cap": (bounds.degree_for, {"error": 0.1, "k": 2, "norm": 1.0, "s": 20, "rule": "D4"}, ()),
    "deviation_lmn": (
        bounds.deviation_lmn,
        {"features": 5, "delta": 0.1, "rows": 50, "second_moment": 1.0, "largest": 2.0},
        (),
    ),
    "generalization": (bounds.generalization, {"of": Class(**CLASS), "rows": 50, "delta": 0.1, "kinds": ("vc",)}, ()),
    "gram_failure": (bounds.gram_failure, {"features": 5, "rows": 50, "floor": 0.5}, ()),
    "junta_conjecture": (bounds.junta_conjecture, {"n": 9, "p": 3}, ()),
    "junta_hardness": (bounds.junta_hardness, {"n": 3000, "s": 30}, ()),
    "largest_eigenvalue_bound": (
        bounds.largest_eigenvalue_bound,
        {"diagonal": [1.0, 2.0], "beside": [0.5, 0.1], "size": 5, "delta": 0.1},
        (),
    ),
    "least_eigenvalue_bound": (
        bounds.least_eigenvalue_bound,
        {"diagonal": [1.0, 2.0], "beside": [0.5, 0.1], "size": 5, "delta": 0.1},
        (),
    ),
    "lsjgh_constant": (bounds.lsjgh_constant, {}, ()),
    "majority_gap": (bounds.majority_gap, {"q": 3, "rows": 50}, ()),
    "noise_adkm": (bounds.noise_adkm, {"rho": 0.5, **CLASS}, ()),
    "noise_bound": (bounds.noise_bound, {"rho": 0.5, "k": 2, "norm": 1.0}, ()),
    "parity_hardness": (bounds.parity_hardness, {"m": 9}, ()),
    "parity_queries": (bounds.parity_queries, {"m": 9, "tolerance": 0.1}, ()),
    "phi": (bounds.phi, {"p": 0.3}, ()),
    **{
        f"rademacher {kind}": (bounds.rademacher, {"kind": kind, "of": Class(**{**CLASS, "n": 50}), "rows": 50}, ())
        for kind in ("trivial", "dense", "vc", "lsjgh", "adkm", "conjecture", "lower")
    },
    "risk_lmn": (bounds.risk_lmn, {"tail": 0.1, "features": 5, "rows": 50, "second_moment": 1.0}, ()),
    "risk_lmn, centred": (
        bounds.risk_lmn,
        {"tail": 0.1, "features": 5, "rows": 50, "variance": 1.0, "learnable": 0.5},
        (),
    ),
    "risk_ols": (bounds.risk_ols, {"tail": 0.1, "features": 5, "rows": 50, "noise": 0.1, "floor": 0.5}, ()),
    "rounding_conjecture": (bounds.rounding_conjecture, {"q": 7, "p": 3, "m": 2}, ()),
    "rounding_hardness": (bounds.rounding_hardness, {"q": 7, "p": 3, "m": 2, "rounding": "floor"}, ()),
    "samples_adkm": (bounds.samples_adkm, {"error": 0.1, "delta": 0.1, **CLASS, "degree": 3.0}, ("degree",)),
    "samples_adkm_statistical": (
        bounds.samples_adkm_statistical,
        {"of": Class(**CLASS), "error": 0.1, "delta": 0.1, "corrected": True},
        (),
    ),
    "samples_erm": (bounds.samples_erm, {"of": Class(**CLASS), "error": 0.1, "delta": 0.1, "realizable": True}, ()),
    "samples_lmn": (bounds.samples_lmn, {"features": 5, "error": 0.1, "second_moment": 1.0}, ()),
    "samples_lmn, centred": (bounds.samples_lmn, {"features": 5, "error": 0.1, "variance": 1.0}, ()),
    "samples_ols": (bounds.samples_ols, {"features": 5, "delta": 0.1}, ()),
    "tail_bound": (bounds.tail_bound, {"degree": 3, "k": 2, "norm": 1.0}, ()),
    "tail_bound_sensitivity": (bounds.tail_bound_sensitivity, {"degree": 3, "sensitivity": 1.0}, ()),
    "tail_bound_width": (bounds.tail_bound_width, {"degree": 3, "k": 2, "norm": 1.0, "s": 20}, ()),
    "tail_bound_width, phi": (bounds.tail_bound_width, {"degree": 3, "k": 2, "norm": 1.0, "phi_value": 1.0}, ()),
    "tail_from_noise": (bounds.tail_from_noise, {"degree": 3, "noise": 0.1, "rho": 0.5}, ()),
    "typical_risk_ols": (bounds.typical_risk_ols, {"tail": 0.1, "features": 5, "rows": 50, "noise": 0.1}, ()),
    # instances
    "cluster_erm": (instances.cluster_erm, {"cluster": np.array([0, 1]), "labels": np.array([1.0, -1.0]), "q": 2}, ()),
    "cluster_net": (instances.cluster_net, {"q": 4, "k": 2, "signs_of": [1, 1, -1, 1], "radius": 2.0}, ("signs_of",)),
    "cluster_net, cells": (instances.cluster_net, {"q": 4, "k": 2, "kind": "cells"}, ()),
    "code_net": (instances.code_net, {"code": CODE, "norm": 1.0, "seed": 0}, ("norm", "seed")),
    "code_table": (instances.code_table, {"code": CODE, "instance": instances.code_net(CODE)}, ()),
    "gated_net": (
        instances.gated_net,
        {"b": 2, "q": 3, "k": 2, "gate": 1.0, "norm": 1.0, "mode": "aligned", "seed": 0},
        ("gate",),
    ),
    "golay_code": (instances.golay_code, {}, ()),
    "hamming_code": (instances.hamming_code, {"r": 3}, ()),
    "index_net": (instances.index_net, {"b": 3}, ()),
    "junta_net": (instances.junta_net, {"values": [1.0, 2.0], "n": 5, "amplitude": 1}, ("n",)),
    "lifted_parity": (instances.lifted_parity, {"m": 4, "subset": [0, 1], "compact": True, "plus_minus": True}, ()),
    "lwr_instance": (instances.lwr_instance, {"q": 5, "p": 2, "secret": [1, 2], "rounding": "floor"}, ()),
    "modulus_net": (instances.modulus_net, {"weight": [1.0, 2.0]}, ()),
    "parity_net": (instances.parity_net, {"p": 3, "k": 2, "norm": 1.0, "n": 4}, ("norm", "n")),
    "random_sparse_net": (instances.random_sparse_net, {"n": 5, "s": 9, "k": 2, "seed": 0}, ()),
    "random_sparse_net, soft": (instances.random_sparse_net, {"n": 5, "s": 9, "threshold": 1.0}, ()),
    "Instance.sample": (instances.index_net(1).sample, {"count": 5, "seed": 0, "noise": 0.1}, ()),
    # networks and what is said about them
    "SparseActivationNet": (
        learn.SparseActivationNet,
        {"weight": [[1.0]], "threshold": [0.0], "outer": [1.0]},
        (),
    ),
    "SparseActivationNet.scaled": (NET.scaled, {"factor": 2.0}, ()),
    "SparseActivationNet.active_counts": (NET.active_counts, {"x": POINTS}, ()),
    "SparsityReport.exceeding": (REPORT.exceeding, {"k": 1}, ()),
    "audit": (learn.audit, {"model": NET, "x": POINTS, "samples": 50, "seed": 0, "delta": 0.1}, ("x",)),
    "average_sensitivity": (learn.average_sensitivity, {"weights": [0.5, 0.5]}, ()),
    "degree_weights_from_samples": (
        learn.degree_weights_from_samples,
        {"x": POINTS, "y": CUBE, "max_degree": 2, "center": True},
        (),
    ),
    "estimate_average_sensitivity": (
        learn.estimate_average_sensitivity,
        {"f": first, "n": 3, "samples": 50, "seed": 0, "delta": 0.1, "span": 3.0},
        ("span",),
    ),
    "estimate_influences": (learn.estimate_influences, {"f": first, "n": 3, "samples": 50, "seed": 0}, ()),
    "estimate_noise_sensitivity": (
        learn.estimate_noise_sensitivity,
        {"f": first, "n": 3, "rho": 0.5, "samples": 50, "seed": 0, "delta": 0.1},
        (),
    ),
    "fwht": (learn.fwht, {"values": CUBE}, ()),
    "goldreich_levin": (learn.goldreich_levin, {"f": first, "n": 3, "theta": 0.3, "samples": 500, "seed": 0}, ()),
    "influences": (learn.influences, {"coefficients": CUBE}, ()),
    "krawtchouk_table": (learn.krawtchouk_table, {"n": 5, "degree": 2}, ()),
    "most_active": (learn.most_active, {"net": NET, "limit_s": 5.0, "seed": 0}, ()),
    "noise_sensitivity": (learn.noise_sensitivity, {"weights": [0.5, 0.5], "rho": 0.5}, ()),
    "sensitivity_bounds": (learn.sensitivity_bounds, {"net": NET, "k": 1, "samples": 50, "delta": 0.1}, ("k",)),
    "spectrum": (learn.spectrum, {"values": CUBE}, ()),
    "tail": (learn.tail, {"weights": [0.5, 0.5], "degree": 1}, ()),
    "verify_sparsity": (learn.verify_sparsity, {"net": NET, "x": None, "samples": 50, "seed": 0}, ("x",)),
    "walsh_kernel": (learn.walsh_kernel, {"a": POINTS, "b": POINTS, "degree": 2}, ()),
    "weight_by_degree": (learn.weight_by_degree, {"coefficients": CUBE}, ()),
}
RESULTS = {  # what functions return; nobody makes them from numbers of his own
    *("AuditReport", "Bound", "Batches", "Code", "DegreeWeights", "Estimate", "Hardness", "Instance", "Ladder"),
    *("LayerAudit", "MostActive", "SensitivityBounds", "SparsityReport"),
}


def numbers_in(found: object) -> list[float]:
    if isinstance(found, Bound):
        return [found.value, found.failure_probability]
    if isinstance(found, Hardness):
        return [found.log2_work or 0.0]
    if isinstance(found, np.ndarray):
        return found.ravel().tolist()
    if isinstance(found, float | int):
        return [found]
    return []


def test_the_table_has_every_public_function() -> None:
    listed = {name.split(",")[0].split(" ")[0] for name in WORKS}
    public = {*bounds.__all__, *instances.__all__, *learn.__all__}
    assert public - listed == RESULTS | {"certificates"}  # a second name of sensitivity_bounds


@pytest.mark.parametrize("name", WORKS)
def test_a_hostile_argument_gets_a_number_or_a_sentence(name: str) -> None:
    call, given, optional = WORKS[name]
    assert not any(math.isnan(v) for v in numbers_in(call(**given)))
    for argument in given:
        for wrong in WRONG:
            try:
                found = call(**{**given, argument: wrong})
            except (ConfigError, DataError, ShapeError) as error:
                said = str(error)
                assert said.endswith(".") and "\n" not in said and len(said) < 300, (argument, wrong, said)
                continue
            assert not any(math.isnan(v) for v in numbers_in(found)), (argument, wrong, found)
            taken = (wrong is None and argument in optional) or (wrong == 10**400 and argument == "seed")
            assert wrong not in NEVER or taken, (argument, wrong, found)
            if isinstance(found, Bound):
                assert found.vacuous or math.isfinite(found.value), (argument, wrong)


def test_the_table_gives_every_argument() -> None:
    for call in {entry[0] for entry in WORKS.values()}:
        given = {a for entry in WORKS.values() if entry[0] is call for a in entry[1]}
        missing = set(inspect.signature(call).parameters) - given
        assert missing <= {"impl", "in_place", "blocks", "rule", "realizable", "kinds", "seed", "kind"}, call


def test_small_integers_of_numpy_do_not_overflow() -> None:
    whole, small = 60_000**2 - 50_000**2, np.int32
    found = bounds.as_mostly_sparse(small(50_000), 1.0, s=small(60_000), exceeding=0.5)
    assert found.value == 4 * (50_000**2 + whole / 2)
    assert bounds.as_sparse(np.int8(100), 1).value == 40_000
    sizes = {"norm": 1.0, "bias": 1.0, "n": 100, "s": 1000}
    assert bounds.degree_adkm(0.1, np.int64(300), **sizes).value == bounds.degree_adkm(0.1, 300, **sizes).value > 6.5e23
    assert bounds.parity_hardness(np.int8(20)) == bounds.parity_hardness(20)
    assert bounds.rounding_hardness(np.int8(100), 3, 2) == bounds.rounding_hardness(100, 3, 2)
    one = Class(n=np.int16(300), s=np.int16(300), k=np.int16(200), norm=np.float32(2), radius=np.int8(3))
    assert one == Class(n=300, s=300, k=200, norm=2.0, radius=3.0)
    kinds = {field.name: type(getattr(one, field.name)) for field in dataclasses.fields(one)}
    assert kinds == {"n": int, "s": int, "k": int, "norm": float, "bias": float, "radius": float}
    assert bounds.rademacher("dense", one, rows=np.int8(100)) == bounds.rademacher("dense", one, rows=100)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bounds.junta_conjecture(3, 2.5),
        lambda: bounds.junta_hardness(30, 3.9),
        lambda: bounds.parity_hardness(2.5),
        lambda: bounds.parity_queries(1.5, 0.1),
        lambda: bounds.rounding_hardness(7.5, 3, 3),
        lambda: bounds.tail_from_noise(2.5, 0.1, rho=0.5),
        lambda: Class(n=20.5, s=30, k=1),
        lambda: REPORT.exceeding(0.5),
    ],
)
def test_counts_are_whole(call: Callable) -> None:
    with pytest.raises(ConfigError, match=r"is a whole number, got \d+\.5|is a whole number, got 3\.9"):
        call()


def test_what_leaves_the_range_of_floats_is_infinite_and_vacuous() -> None:
    sizes = {"norm": 1.0, "bias": 1.0, "n": 100, "s": 1000}
    for bound in (
        bounds.degree_adkm(1e-200, 1, **sizes),
        bounds.as_sparse(1, 1e200),
        bounds.as_sparse(10**200, 1.0),
        bounds.samples_lmn(10**200, 1e-200, second_moment=1.0),
        bounds.rademacher("vc", Class(n=1, s=1, k=1, norm=1e200, radius=1e200), rows=5),
    ):
        assert bound.value == math.inf and bound.vacuous
    with pytest.raises(ConfigError, match=r"at most 1e\+300, got about 2\^2001"):
        bounds.junta_hardness(3000, 2**2000)


def test_no_more_neurons_are_active_than_there_are() -> None:
    sizes = {"norm": 1.0, "bias": 1.0, "n": 10, "s": 3}
    for call in (
        lambda: bounds.noise_adkm(0.5, 4, **sizes),
        lambda: bounds.samples_adkm(0.1, 0.1, 4, **sizes),
        lambda: bounds.as_adkm(4, **sizes),
        lambda: bounds.degree_adkm(0.1, 4, **sizes),
    ):
        with pytest.raises(ConfigError, match="k = 4 exceeds s = 3"):
            call()
