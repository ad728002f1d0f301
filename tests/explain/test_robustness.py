"""Attacks against closed forms: linear and quadratic losses, and gradients taken by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, DataError, NoBlocksError
from lazyneuron.explain import Attack, attack_features, attack_inputs
from tests.explain.test_report import Layer, X, each_loss, model

EPS = 0.01


class Identity(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + self.shift


W = torch.tensor([1.0, -2.0, 0.5])
IMAGES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(("norm", "rise"), [("linf", 3.5), ("l2", math.sqrt(5.25))])
def test_a_linear_loss_rises_by_the_dual_norm(norm, rise, steps):
    found = attack_inputs(Identity(), [IMAGES[:2], IMAGES[2:]], Attack(eps=EPS, norm=norm, steps=steps), loss=linear)
    assert found.clean_loss == pytest.approx(float((IMAGES @ W).mean()), rel=1e-5)
    assert found.loss - found.clean_loss == pytest.approx(EPS * rise, rel=1e-3)
    assert found.first_order == pytest.approx(EPS * rise, rel=1e-5)
    assert found.place == "input" and found.quality is None


def linear(y, _):
    return y @ W


def test_a_quadratic_loss_is_maximised_on_the_ball():
    x = IMAGES.double()
    found = attack_inputs(
        Identity().double(), [x], Attack(eps=0.3, norm="l2", steps=20), loss=lambda y, _: y.square().sum(-1) / 2
    )
    assert found.loss == pytest.approx(float(((x.norm(dim=-1) + 0.3).square() / 2).mean()), rel=1e-9)


def test_legal_bounds_hold():
    found = attack_inputs(Identity(), [IMAGES.clamp(-1, 1)], Attack(eps=5.0, steps=3), loss=linear, bounds=(-1.0, 1.0))
    assert found.loss == pytest.approx(3.5, rel=1e-5)


def test_a_relative_bound_follows_the_input():
    one, two = (
        attack_inputs(Identity(), [k * IMAGES], Attack(eps=EPS, relative=True), loss=linear) for k in (1.0, 2.0)
    )
    sizes = IMAGES.square().mean(-1).sqrt()
    assert one.first_order == pytest.approx(EPS * 3.5 * float(sizes.mean()), rel=1e-5)
    assert two.first_order == pytest.approx(2 * one.first_order, rel=1e-5)


def feature_gradients(net, x):
    """dL/dx of each block's input, by a plain loop."""
    kept, h = [], x.clone().requires_grad_()
    for layer in list(net)[:2]:
        y = layer.norm(h)
        p = (layer.up if layer.gate is None else layer.gate)(y)
        a = layer.act(p) if layer.gate is None else layer.act(p) * layer.up(y)
        kept.append(y)
        h = h + layer.down(a)
    return torch.autograd.grad(each_loss(h, x).sum(), kept)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_features_rise_as_their_gradient_says(gated, norm):
    net, eps = model(gated=gated), 1e-7
    found = attack_features(net, [X[:1], X[1:]], Attack(eps=eps, norm=norm), loss=each_loss)
    for one, g in zip(found, feature_gradients(net, X), strict=True):
        size = g.abs().sum() if norm == "linf" else g.norm(dim=-1).sum()
        assert one.first_order == pytest.approx(eps * float(size) / len(X), rel=1e-9)
        assert one.loss - one.clean_loss == pytest.approx(one.first_order, rel=1e-4)
    assert [one.place for one in found] == [b.name for b in lazy.find_blocks(net)]


def test_all_blocks_together_add_up_to_first_order():
    net = model()
    alone = attack_features(net, [X], Attack(eps=EPS), loss=each_loss)
    (both,) = attack_features(net, [X], Attack(eps=EPS), loss=each_loss, together=True)
    assert both.place == "all blocks"
    assert both.first_order == pytest.approx(sum(one.first_order for one in alone), rel=1e-9)
    assert both.loss > max(one.loss for one in alone)


def test_more_steps_find_more():
    net = model()
    losses = [
        attack_features(net, [X], Attack(eps=0.5, steps=k), loss=each_loss, together=True)[0].loss for k in (1, 20)
    ]
    assert losses[1] > losses[0]


def test_random_numbers_are_the_same_and_nothing_is_left_behind():
    net = nn.Sequential(Layer(nn.ReLU, gated=False), nn.Dropout(0.5)).double().train()
    state, before = torch.get_rng_state(), [p.clone() for p in net.parameters()]
    (found,) = attack_features(net, [X], Attack(eps=0.0, steps=2), loss=each_loss)
    assert found.loss == found.clean_loss and found.first_order == 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters(), strict=True))
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_token_models_are_attacked_in_their_embeddings():
    torch.manual_seed(0)
    sizes = dict(vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    net = BertForSequenceClassification(BertConfig(**sizes, hidden_act="relu", num_labels=3)).eval()
    batch = {
        "input_ids": torch.randint(20, (6, 5)),
        "attention_mask": torch.ones(6, 5, dtype=torch.long),
        "labels": torch.arange(6) % 3,
    }

    def accuracy(output, b):
        return float((output.logits.argmax(-1) == b["labels"]).float().mean())

    found = attack_inputs(net, [batch], Attack(eps=0.02, steps=10), quality=accuracy)
    assert found.place == "input embeddings" and found.loss > found.clean_loss + 0.003
    assert found.clean_quality == pytest.approx(accuracy(net(**batch), batch)) and found.quality <= found.clean_quality
    table = net.get_input_embeddings().weight
    rows = table[batch["input_ids"]].detach().requires_grad_()
    rest = {k: v for k, v in batch.items() if k != "input_ids"}
    (g,) = torch.autograd.grad(6 * net(inputs_embeds=rows, **rest).loss, rows)
    first = attack_inputs(net, [batch], Attack(eps=EPS, norm="l2")).first_order
    assert first == pytest.approx(EPS * float(g.norm(dim=-1).sum()) / 6, rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"eps": "1/255"}, {"eps": -1.0}, {"eps": math.nan}, {"eps": 1, "norm": "l1"}, {"eps": 1, "steps": 0}]
)
def test_attacks_without_meaning_are_refused(wrong):
    with pytest.raises(ConfigError):
        Attack(**wrong)


def test_what_cannot_be_attacked_is_named():
    with pytest.raises(DataError, match="no batches"):
        attack_inputs(Identity(), [], Attack(eps=1.0), loss=linear)
    with pytest.raises(DataError, match="anything real-valued to change"):
        attack_inputs(Identity(), [torch.ones(2, 3, dtype=torch.long)], Attack(eps=1.0), loss=linear)
    with pytest.raises(DataError, match="no 'pixels' to change; it has x"):
        attack_inputs(Identity(), [{"x": IMAGES}], Attack(eps=1.0), loss=linear, key="pixels")
    with pytest.raises(NoBlocksError):
        attack_features(Identity(), [IMAGES], Attack(eps=1.0), loss=linear)
