"""The statistics beyond flatness, by brute force; and gradients under mixed precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.explain import diagonality, explain
from lazyneuron.explain.gradient_histogram import BINS, GradientHistogram
from tests.explain.test_report import X, each_loss, mean_loss, model


def tensors(net, x):
    """p, g and eta of the first layer, by hand."""
    layer = net[0]
    y = layer.norm(x)
    p = layer.up(y)
    a = layer.act(p).detach().requires_grad_()
    h = x + layer.down(a)
    (g,) = torch.autograd.grad(each_loss(net[1](h), x).sum(), a)
    return p.detach(), g, g * (p > 0)


def test_signs_squares_and_thresholds():
    net = model()
    _, g, eta = tensors(net, X)
    block = explain(net, [X[:3], X[3:]], mean_loss, thresholds=(1e-3, 1e-2)).blocks[0]
    assert block.beneficial_mean == pytest.approx(float(eta[eta < 0].mean()))
    assert block.detrimental_mean == pytest.approx(float(eta[eta > 0].mean()))
    assert block.hidden_gradient_square == pytest.approx(float(g.square().sum(-1).mean()))
    assert block.active_gradient_ratio == pytest.approx(float(g[eta != 0].square().mean() / g.square().mean()))
    assert block.weight_square == pytest.approx(float((net[0].up.weight @ net[0].up.weight.t()).trace().detach()))
    assert [t for t, _ in block.effective_below] == [1e-3, 1e-2]
    assert [s for _, s in block.effective_below] == pytest.approx(
        [float((eta.abs() < t).double().mean()) for t in (1e-3, 1e-2)]
    )
    assert block.diagonality is None and block.histogram is None


def naive(weight, g):
    found = {"weights": [], "gradients": [], "product": []}
    k = weight @ weight.T
    for q in (1, 2):
        off = ~torch.eye(len(k), dtype=torch.bool)

        def share(m, q=q, off=off):
            return math.log10(float(m.diagonal().abs().pow(q).sum() / m[off].abs().pow(q).sum()))

        found["weights"].append(share(k))
        outer = [torch.outer(v, v) for v in g]
        found["gradients"].append(sum(map(share, outer)) / len(g))
        found["product"].append(sum(share(m * k) for m in outer) / len(g))
    return found


@given(neurons=st.integers(2, 6), width=st.integers(1, 5), tokens=st.integers(1, 4), seed=st.integers(0, 99))
def test_diagonality_against_full_matrices(neurons, width, tokens, seed):
    dice = torch.Generator().manual_seed(seed)
    k = torch.randn(neurons, width, generator=dice, dtype=torch.float64)
    g = torch.randn(tokens, neurons, generator=dice, dtype=torch.float64)
    found = diagonality(k, g)
    for name, wanted in naive(k, g).items():
        assert getattr(found, name) == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    silent = torch.cat([g, torch.zeros(1, neurons, dtype=torch.float64)])
    assert diagonality(k, silent).product == pytest.approx(found.product)


def test_diagonality_and_histogram_in_a_report():
    net = model()
    _, g, eta = tensors(net, X)
    block = explain(net, [X[:1], X[1:]], mean_loss, diagonality=True, histograms=True).blocks[0]
    for name, wanted in naive(net[0].up.weight.detach(), g.reshape(-1, 11)).items():
        assert getattr(block.diagonality, name) == pytest.approx(wanted, rel=1e-6)
    assert sum(block.histogram.every) + block.histogram.zeros == g.numel()
    assert sum(block.histogram.active) == int((eta != 0).sum())
    with pytest.raises(ShapeError, match="at least 2 neurons"):
        diagonality(torch.ones(1, 3), torch.ones(2, 1))


def test_histogram_bins():
    values = torch.tensor([1e-30, 1.5e-20, 1.0, -1.0, 0.5, 3e7, 0.0])
    found = GradientHistogram.empty().plus(values, values.clamp(min=0))
    wanted = [0] * BINS
    wanted[0], wanted[1], wanted[200], wanted[196], wanted[-1] = 1, 1, 2, 1, 1
    assert list(found.every) == wanted and found.zeros == 1 and sum(found.active) == 5


class Scaler:
    def get_scale(self):
        return 2.0**20


def test_a_loss_scale_saves_gradients_that_half_precision_loses():
    net = model().float()
    x, tiny = X.float(), 1e-7
    exact = explain(net.double(), [X], lambda o, b: tiny * mean_loss(o, b), spectra=False).blocks
    net.float()
    with torch.autocast("cpu", torch.float16):
        lost = explain(net, [x], lambda o, b: tiny * mean_loss(o, b), spectra=False).blocks
        kept = explain(
            net, [x], lambda o, b: Scaler().get_scale() * tiny * mean_loss(o, b), spectra=False, loss_scale=Scaler()
        )
    assert kept.loss == pytest.approx(tiny * float(mean_loss(net(x), x).detach()), rel=1e-2)
    for a, b, c in zip(exact, kept.blocks, lost, strict=True):
        assert b.as_up == pytest.approx(a.as_up, rel=2e-2) and b.as_down == pytest.approx(a.as_down, rel=2e-2)
        assert c.effective_l1 < 0.95 * a.effective_l1 or c.as_up != pytest.approx(a.as_up, rel=2e-2)
        assert b.identity_residual < 1e-9


def test_a_loss_scale_that_overflows_is_named():
    net = nn.Sequential(*list(model())[:2]).half()
    with pytest.raises(DataError, match=r"Gradients at the block '\d' are not finite with a loss scale of 1e\+12"):
        explain(net, [X.half()], lambda o, b: 1e12 * mean_loss(o, b).float(), loss_scale=1e12)
