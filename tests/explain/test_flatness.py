"""The identities, in float64, against gradients that torch.func takes of per-token copies of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.blocks import Activation
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.explain import (
    augmented_flatness,
    density_identity,
    effective_gradient,
    feature_gradient,
    gated_density_identity,
    hidden_square_identity,
)

INF = math.inf
ACTIVATIONS = [
    Activation("relu"),
    Activation("squared_relu"),
    Activation("jsrelu", (0.0, INF)),
    Activation("jsrelu", (0.3, INF)),
    Activation("jsrelu", (1.0, INF)),
    Activation("jsrelu", (1.0, 0.5)),
    Activation("fatrelu", (0.2,)),
]


class Toy:
    """One block with a loss that mixes tokens and samples' own targets; everything in float64."""

    def __init__(self, activation: Activation, *, gated: bool = False, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        self.activation = activation
        self.x, self.target = draw(3, 4, 5), draw(3, 6)
        self.up, self.bias, self.down = draw(7, 5), draw(7), draw(6, 7)
        self.gate = draw(7, 5) if gated else None

    def forward(self, x: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pre-activation, hidden activation, output, and each sample's loss; weights may be one a token."""
        p = torch.einsum("...jd,...d->...j", up, x) + self.bias
        u = 1.0 if self.gate is None else x @ self.gate.t()
        a = self.activation(p) * u
        z = torch.einsum("...kj,...j->...k", down, a)
        return p, a, z, (z.mean(1).tanh() - self.target).square().sum(-1)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """p, g and gV, by autograd on the summed loss."""
        x = self.x.clone().requires_grad_()
        p, a, z, losses = self.forward(x, self.up, self.down)
        g, gv = torch.autograd.grad(losses.sum(), [a, z])
        return p.detach(), g, gv


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_density_identity_is_exact(activation: Activation, gated: bool, masked: bool) -> None:
    toy = Toy(activation, gated=gated)
    p, g, _ = toy.gradients()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]) if masked else None
    factor = None if toy.gate is None else toy.x @ toy.gate.t()
    check = density_identity(toy.x, p, g, activation, mask=mask, gate_value=factor)
    real = torch.ones(3, 4, dtype=torch.bool) if mask is None else mask.bool()
    assert check.density == pytest.approx(float((~activation.zero.contains(p))[real].double().mean()), abs=1e-12)
    assert check.predicted == pytest.approx(check.density, rel=1e-9)
    assert check.residual < 1e-9 and not check.degenerate


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_the_gated_second_identity(activation: Activation, masked: bool) -> None:
    """Its flatness is the squared gradient of per-token copies of the matrix that the value is multiplied by."""
    toy = Toy(activation, gated=True)
    assert toy.gate is not None
    p, g, _ = toy.gradients()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]) if masked else None
    check = gated_density_identity(toy.x, p, g, activation, mask=mask)
    real = torch.ones(3, 4, dtype=torch.bool) if mask is None else mask.bool()
    assert check.density == pytest.approx(float((activation(p) != 0)[real].double().mean()), abs=1e-12)
    assert check.predicted == pytest.approx(check.density, rel=1e-9) and check.residual < 1e-9
    copies = toy.gate.expand(3, 4, 7, 5).clone().requires_grad_()
    u = torch.einsum("btjd,btd->btj", copies, toy.x)
    z = torch.einsum("kj,btj->btk", toy.down, activation(p) * u)
    losses = (z.mean(1).tanh() - toy.target).square().sum(-1)
    (by_copies,) = torch.autograd.grad(losses.sum(), [copies])
    wanted = float(by_copies.square().sum((-2, -1))[real].sum()) / 3
    assert check.as_up == pytest.approx(wanted, rel=1e-10)
    first = density_identity(toy.x, p, g, activation, gate_value=toy.x @ toy.gate.t())
    assert abs(first.as_up - check.as_up) > 1e-3  # another matrix has another flatness


def test_the_square_of_hidden_activations() -> None:
    """Exact where |a|^2 and |gV|^2 are uncorrelated over tokens; else off by their covariance."""
    a = torch.tensor([[[1.0], [1.0]], [[3.0], [3.0]]])
    crossed, aligned = torch.tensor([[[2.0], [4.0]], [[2.0], [4.0]]]), torch.tensor([[[2.0], [2.0]], [[4.0], [4.0]]])
    check = hidden_square_identity(a, crossed)
    assert (check.hidden_square, check.coefficient, check.as_down) == (5.0, 10.0, 100.0)
    assert check.predicted == 5.0 and check.ratio == 1.0
    check = hidden_square_identity(a, aligned)  # E |a|^2 |gV|^2 = (1 * 4 + 9 * 16) / 2 = 74, not 5 * 10
    assert check.predicted == pytest.approx(7.4) and check.ratio == pytest.approx(1.48)
    check = hidden_square_identity(
        a, crossed, mask=torch.tensor([[1, 0], [1, 1]])
    )  # (4 + 36 + 144) / 3, 24 / 3, 19 / 3
    assert check.predicted == pytest.approx(184 / 24) and check.hidden_square == pytest.approx(19 / 3)
    assert math.isnan(hidden_square_identity(a, 0 * crossed).predicted)


def test_without_the_squared_derivative_it_fails() -> None:
    """The formula of the authors' code is right for ReLU only."""
    for activation, right in ((Activation("relu"), True), (Activation("jsrelu", (1.0, INF)), False)):
        toy = Toy(activation)
        p, g, _ = toy.gradients()
        check = density_identity(toy.x, p, g, activation)
        fires = p > 0
        theirs = (toy.x.square().sum(-1, keepdim=True) * g.square())[fires].mean()
        predicted = check.as_up / (4 * 7 * float(theirs))
        assert (abs(predicted - check.density) < 1e-9) == right


def test_a_common_factor_cancels() -> None:
    toy = Toy(ACTIVATIONS[4])
    p, g, _ = toy.gradients()
    one, other = (density_identity(toy.x, p, g * factor, toy.activation) for factor in (1.0, 65536.0))
    assert one.predicted == pytest.approx(other.predicted, rel=1e-12)
    assert other.as_up == pytest.approx(one.as_up * 65536.0**2, rel=1e-12)


def test_nothing_fires() -> None:
    toy = Toy(Activation("relu"))
    toy.bias -= 1e6
    p, g, _ = toy.gradients()
    check = density_identity(toy.x, p, g, toy.activation)
    assert check.degenerate and check.density == 0
    assert math.isnan(check.coefficient) and math.isnan(check.predicted) and math.isnan(check.residual)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_augmented_flatness_is_the_gradient_of_per_token_copies(activation: Activation) -> None:
    toy = Toy(activation)
    p, g, gv = toy.gradients()
    ups = toy.up.expand(3, 4, 7, 5).clone().requires_grad_()
    downs = toy.down.expand(3, 4, 6, 7).clone().requires_grad_()
    _, a, _, losses = toy.forward(toy.x, ups, downs)
    by_up, by_down = torch.autograd.grad(losses.sum(), [ups, downs])
    eta = effective_gradient(p, g, activation)
    assert augmented_flatness(toy.x, eta) == pytest.approx(float(by_up.square().sum()) / 3, rel=1e-10)
    assert augmented_flatness(a.detach(), gv) == pytest.approx(float(by_down.square().sum()) / 3, rel=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_the_gradient_of_the_features(activation: Activation) -> None:
    toy = Toy(activation)
    x = toy.x.clone().requires_grad_()
    p, a, _, losses = toy.forward(x, toy.up, toy.down)
    g, wanted = torch.autograd.grad(losses.sum(), [a, x])
    eta = effective_gradient(p.detach(), g, activation)
    found = feature_gradient(toy.up, eta)
    torch.testing.assert_close(found, wanted)
    by_gram = torch.einsum("bti,ij,btj->bt", eta, toy.up @ toy.up.t(), eta)
    torch.testing.assert_close(found.square().sum(-1), by_gram)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="samples, tokens, width"):
        augmented_flatness(torch.zeros(2, 3, 4), torch.zeros(2, 4, 4))
    with pytest.raises(ShapeError, match="p and g alike"):
        density_identity(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5), torch.zeros(2, 3, 6), nn.ReLU())  # type: ignore[arg-type]


A, B = torch.ones(2, 3, 4), torch.ones(2, 3, 5)
MASKED = {
    "augmented_flatness": lambda mask: augmented_flatness(A, B, mask=mask),
    "density_identity": lambda mask: density_identity(A, B, B, Activation("relu"), mask=mask),
    "gated_density_identity": lambda mask: gated_density_identity(A, B, B, Activation("relu"), mask=mask),
    "hidden_square_identity": lambda mask: hidden_square_identity(B, A, mask=mask),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_has_the_tokens_shape(name: str) -> None:
    for shape in ((1, 3), (3,), (2, 1), (), (6,), (3, 2), (2, 3, 1), (2, 4)):
        with pytest.raises(ShapeError, match=r"A mask is \(samples, tokens\), here \(2, 3\), got"):
            MASKED[name](torch.ones(shape))
    for wrong in ("mask", [[1, 1, 1], [1, 0, 0]], 1):
        with pytest.raises(DataError, match="A mask is a tensor"):
            MASKED[name](wrong)
