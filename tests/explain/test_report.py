"""explain() on whole models: against autograd by hand, and without a trace."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, DataError, NoBlocksError
from lazyneuron.explain import explain, spectral_concentration


class Layer(nn.Module):
    """A pre-norm residual layer."""

    def __init__(self, kind: type[nn.Module], *, gated: bool, saving: bool = False) -> None:
        super().__init__()
        self.norm, self.up, self.act, self.down = nn.LayerNorm(6), nn.Linear(6, 11), kind(), nn.Linear(11, 6)
        self.gate = nn.Linear(6, 11) if gated else None
        self.saving = saving

    def block(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return self.down(self.act(self.up(y)) if self.gate is None else self.act(self.gate(y)) * self.up(y))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (checkpoint(self.block, x, use_reentrant=False) if self.saving else self.block(x))


def model(kind: type[nn.Module] = nn.ReLU, *, gated: bool = False, saving: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(*(Layer(kind, gated=gated, saving=saving) for _ in range(2)), nn.Dropout(0.1))
    return layers.double().eval()


X = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mean_loss(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return output.tanh().mean(1).square().sum(-1).mean()


def each_loss(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return output.tanh().mean(1).square().sum(-1)


def by_hand(net: nn.Module, x: torch.Tensor) -> list[dict[str, float]]:
    """The same numbers by a plain loop over layers, with every intermediate kept."""
    kept, h = [], x.clone().requires_grad_()
    for layer in list(net)[:2]:
        y = layer.norm(h)
        p = (layer.up if layer.gate is None else layer.gate)(y)
        a = layer.act(p) if layer.gate is None else layer.act(p) * layer.up(y)
        z = layer.down(a)
        kept.append((y, p, a, z, None if layer.gate is None else layer.up(y)))
        h = h + z
    losses = each_loss(h, x).sum()
    found = []
    for tensors in kept:
        g, gv = torch.autograd.grad(losses, tensors[2:4], retain_graph=True)
        y, p, a, _, u = (None if t is None else t.detach() for t in tensors)
        slope = (p > 0).double()
        eta = g * slope * (1 if u is None else u)
        found.append(
            {
                "density": float((a != 0).double().mean()),
                "derivative_density": float(slope.mean()),
                "as_up": float((eta.square().sum(-1) * y.square().sum(-1)).sum()) / len(x),
                "as_down": float((gv.square().sum(-1) * a.square().sum(-1)).sum()) / len(x),
                "effective_l1": float(eta.abs().sum(-1).mean()),
                "effective_l2": float(eta.square().sum(-1).mean()),
                "beneficial": float((eta < 0).double().mean()),
                "detrimental": float((eta > 0).double().mean()),
                "output_gradient": float(gv.norm(dim=-1).mean()),
                "hidden_square": float(a.square().sum(-1).mean()),
                "input_square": float(y.square().sum(-1).mean()),
                "output_gradient_square": float(gv.square().sum(-1).mean()),
                "hidden_square_predicted": float((a * gv.norm(dim=-1, keepdim=True)).square().sum())
                / float(gv.square().sum()),
            }
        )
        if u is not None:
            value = p.clamp(min=0)
            gated = (value * g).square().sum(-1) * y.square().sum(-1)
            found[-1] |= {
                "gated_flatness": float(gated.sum()) / len(x),
                "gated_density": float((value != 0).double().mean()),
            }
    return found


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("saving", [False, True])
def test_against_a_plain_loop(gated: bool, saving: bool) -> None:
    net = model(gated=gated, saving=saving)
    report = explain(net, [X], mean_loss)
    assert report.loss == pytest.approx(mean_loss(net(X), X).item())
    for block, wanted in zip(report.blocks, by_hand(net, X), strict=True):
        assert {key: getattr(block, key) for key in wanted} == pytest.approx(wanted, rel=1e-9)
        assert (block.samples, block.tokens, block.neurons, block.gated) == (4, 12, 11, gated)
        assert block.identity_residual < 1e-9 and block.gram_residual < 1e-9
        assert block.identity_density == pytest.approx(block.derivative_density)
        assert math.isnan(block.gated_flatness) != gated
        if gated:
            assert block.gated_identity_residual < 1e-9
            assert block.gated_identity_density == pytest.approx(block.gated_density)


def test_batches_losses_and_scales_do_not_matter() -> None:
    net = model()
    whole = explain(net, [X], mean_loss)
    for report in (
        explain(net, [X[:1], X[1:]], mean_loss),
        explain(net, [X], each_loss),
        explain(net, [X], lambda o, b: 1024 * mean_loss(o, b), loss_scale=1024.0),
    ):
        for a, b in zip(report.blocks, whole.blocks, strict=True):
            for key in ("as_up", "as_down", "effective_l1", "identity_density", "gradient_participation", "density"):
                assert getattr(a, key) == pytest.approx(getattr(b, key), rel=1e-9), key
        assert report.loss == pytest.approx(whole.loss)


def test_padding_does_not_count() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model()

        def forward(self, x, attention_mask):  # type: ignore[no-untyped-def]
            return (self.layers(x) * attention_mask[..., None]).sum(1)

    net = Masked().eval()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]])

    def loss(output, batch):  # type: ignore[no-untyped-def]
        return output.square().sum(-1)

    padded = explain(net, [{"x": X, "attention_mask": mask}], loss)
    ragged = explain(
        net,
        [{"x": X[k : k + 1, :n], "attention_mask": mask[k : k + 1, :n]} for k, n in enumerate((3, 2, 1, 2))],
        loss,
    )
    for a, b in zip(padded.blocks, ragged.blocks, strict=True):
        assert a.tokens == b.tokens == 8
        for key in ("as_up", "derivative_density", "effective_l2", "identity_density"):
            assert getattr(a, key) == pytest.approx(getattr(b, key), rel=1e-9)
        assert a.identity_residual < 1e-9


def test_a_smooth_function_is_dense_and_a_dead_block_is_flagged() -> None:
    smooth = explain(model(nn.GELU), [X], mean_loss)
    assert all(b.derivative_density == 1.0 and b.identity_residual < 1e-9 for b in smooth.blocks)
    net = model()
    net[0].up.bias.data -= 1e3
    dead, alive = explain(net, [X], mean_loss).blocks
    assert dead.degenerate and math.isnan(dead.identity_residual) and dead.density == 0
    assert not alive.degenerate


def test_spectra_alone_need_no_data() -> None:
    net = model()
    report = explain(net, [], gradients=False)
    assert report.blocks == () and math.isnan(report.loss)
    assert [s.name for s in report.spectra] == [b.name for b in lazy.find_blocks(net)]
    assert report.spectra[0].concentration == spectral_concentration(net[0].up.weight)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_leaves_no_trace(training: bool, frozen: bool) -> None:
    net = model().train(training)
    if frozen:
        net.requires_grad_(False)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()

    def failing(output, batch):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    explain(net, [X], mean_loss)
    with pytest.raises(KeyboardInterrupt):
        explain(net, [X], failing)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before.values(), strict=True))
    assert all(bool((p.grad == 1).all()) for p in net.parameters())
    assert all(m.training == training for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_frozen_parameters_change_nothing() -> None:
    one, other = (explain(model().requires_grad_(trained), [X], mean_loss).blocks for trained in (True, False))
    assert [b.as_up for b in one] == pytest.approx([b.as_up for b in other])


def test_the_record_is_json() -> None:
    record = explain(model(), [X], mean_loss).to_record(seed=3)
    again = type(record).from_json(record.to_json())
    assert (again.kind, again.seed, len(again.data["blocks"])) == ("explain", 3, 2)


def test_what_cannot_be_explained_is_said() -> None:
    with pytest.raises(NoBlocksError):
        explain(nn.Linear(3, 3), [torch.zeros(1, 3)], mean_loss)
    with pytest.raises(DataError, match="no batches"):
        explain(model(), [], mean_loss)
    with pytest.raises(ConfigError, match="No loss was given"):
        explain(model(), [X])
    with pytest.raises(ConfigError, match="one number for each of 4 samples"):
        explain(model(), [X], lambda o, b: o)
    with pytest.raises(ConfigError, match="loss_scale"):
        explain(model(), [X], mean_loss, loss_scale=0.0)
    with pytest.raises(DataError, match="cannot run on this batch"):
        explain(model(), [X[..., :5]], mean_loss)
