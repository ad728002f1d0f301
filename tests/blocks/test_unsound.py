"""Weights that cannot be worked with are named, not passed over."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate import plan_acceleration
from lazyneuron.blocks import find
from lazyneuron.blocks.find import search
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.induce import Relufy
from lazyneuron.induce import plan as plan_recipe
from lazyneuron.report import sparsity_page
from lazyneuron.train import pack_activations_
from tests.blocks.architectures import KNOWN


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("verb", [lazy.accelerate_, lambda m: lazy.measure(m, [torch.zeros(2, 8)])])
def test_a_first_layer_that_is_not_finite(value, verb):
    model = mlp()
    model[0].weight.data[1, 2] = value
    with pytest.raises(NoBlocksError, match="0: Its weight or bias holds NaN or infinity"):
        verb(model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_last_layer_that_is_not_finite_is_measured_but_not_accelerated(value):
    model = mlp()
    model[2].weight.data[1, 2] = value
    assert lazy.measure(model, [torch.ones(2, 8)]).blocks[0].tokens == 2
    with pytest.raises(NoBlocksError, match="The weights of 2 hold NaN or infinity"):
        lazy.accelerate_(model)


def test_weights_that_are_not_loaded():
    with torch.device("meta"):
        model = mlp()
    with pytest.raises(NoBlocksError, match="0: Its weight is on the meta device; load it"):
        lazy.accelerate_(model)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize("verb", [lazy.accelerate_, lambda m: lazy.accelerate_(m, weights="int8"), pack_activations_])
@pytest.mark.parametrize("part", ["gate.weight", "up.weight", "down.weight", "gate.bias", "up.bias", "down.bias"])
def test_one_tensor_that_is_not_loaded(part, verb):
    model, (layer, name) = Gated().eval(), part.split(".")
    module = model.get_submodule(layer)
    setattr(module, name, nn.Parameter(getattr(module, name).to("meta")))
    with pytest.raises(NoBlocksError, match=f"{layer}: Its {name} is on the meta device; load it"):
        verb(model)


def test_a_block_on_several_devices_that_cannot_run(monkeypatch):
    class Placed(Gated):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("Expected all tensors to be on the same device")

    where = {"gate": "cuda:0", "up": "cuda:0", "down": "cuda:1"}
    monkeypatch.setattr(search, "_devices", lambda site: {torch.device(where[site.name])})
    with pytest.raises(NoBlocksError, match="of down are on several devices, cuda:0, cuda:1; move all to one"):
        lazy.accelerate_(Placed().eval())


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "phi3"])
@pytest.mark.parametrize("part", ["up", "gate"])
def test_a_block_that_is_not_finite_is_in_what_every_verb_returns(family, part):
    known = KNOWN[family]
    model = known.model()
    site = getattr(find(model).blocks[0], part)
    if site is None:
        pytest.skip("no gate")
    with torch.no_grad():
        (site.weight if site.bias is None else site.bias).view(-1)[1] = math.nan
    wanted = (site.name, "Its weight or bias holds NaN or infinity; load a sound one.")
    assert [(r.name, r.reason) for r in find(model).rejected] == [wanted]
    report = lazy.measure(model, [known.batch])
    assert len(report.blocks) == 1
    assert ": ".join(wanted) in str(report)
    assert report.to_data()["rejected"] == [{"name": wanted[0], "reason": wanted[1]}]
    for plan in (plan_acceleration(model).skipped, plan_recipe(model, Relufy()).changes):
        assert (*wanted, "skipped") in [(c.block, c.reason, c.action) for c in plan]
    receipt = lazy.sparsify_(model, Relufy())
    assert [(c.block, c.reason) for c in receipt.changes if c.action == "skipped"] == [wanted]


def test_the_page_of_a_measurement_names_what_was_rejected():
    model = nn.ModuleList([mlp(), mlp()])
    model.forward = model[0].forward
    model[1][0].bias.data[3] = math.nan
    page = sparsity_page(lazy.measure(model, [torch.ones(2, 8)]).to_record())
    assert "1.0: Its weight or bias holds NaN or infinity" in page


class WholeToken(nn.Module):
    """Its zeros depend on all neurons of a token: a cut at its mean and deviation, or a norm."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 8)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        z = self.gate(x)
        if self.kind == "norm":
            return self.down(torch.relu(F.layer_norm(z, (32,))))
        cut = torch.relu(z - z.mean(-1, keepdim=True) - z.std(-1, keepdim=True))
        return self.down(F.gelu(cut) * self.up(x) if self.kind == "gated" else cut)


@pytest.mark.parametrize("kind", ["norm", "plain", "gated"])
def test_zeros_that_depend_on_the_whole_token_are_named(kind):
    torch.manual_seed(0)
    model = nn.Sequential(WholeToken(kind), mlp()).eval()
    found = find(model)
    assert [b.name for b in found.blocks] == ["1"]
    assert [r.name for r in found.rejected] == ["0"]
    assert "neurons of 0.gate are zero before 0.down depends on the whole token" in found.rejected[0].reason
    with pytest.raises(NoBlocksError, match="depends on the whole token"):
        lazy.measure(nn.Sequential(WholeToken(kind)), [torch.ones(2, 8)])


def test_element_wise_zeros_and_attention_are_not_taken_for_it():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            heads = (f(x).unflatten(-1, (2, 4)).transpose(-3, -2) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(*heads)
            return self.o(torch.relu(y.transpose(-3, -2).flatten(-2)))

    torch.manual_seed(0)
    assert find(nn.Sequential(Attention(), mlp())).rejected == ()
