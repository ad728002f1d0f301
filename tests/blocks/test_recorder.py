"""The recorder shows what the layers of a block really received and returned, whatever the block's form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.blocks.recorder import fit_mask, real_tokens, recording

PLACES = ("inputs", "pre_activations", "factors", "hidden", "outputs")


class Gated(nn.Module):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Merged(nn.Module):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.both, self.down = nn.Linear(8, 64), nn.Linear(32, 8)

    def forward(self, x):
        g, u = self.both(x).chunk(2, -1)
        return self.down(F.silu(g) * u)


def by_hand(model, x):
    if isinstance(model, nn.Sequential):
        z = F.linear(x, model[0].weight, model[0].bias)
        h, u = F.relu(z), None
    else:
        z, u = (model.gate(x), model.up(x)) if isinstance(model, Gated) else model.both(x).tensor_split(2, -1)
        h = F.silu(z) * u
    down = model[2] if isinstance(model, nn.Sequential) else model.down
    return {"inputs": x, "pre_activations": z, "factors": u, "hidden": h, "outputs": down(h)}


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)), Gated(), Merged()])
@pytest.mark.parametrize("graph", [True, False])
def test_every_place_shows_the_tensor_that_is_there(model, graph):
    (block,) = find_blocks(model)
    x = torch.randn(2, 3, 8, requires_grad=True)
    expected = by_hand(model, x)
    seen = {}
    hooks = {place: lambda b, value, place=place: seen.update({place: (b.name, value)}) for place in PLACES}
    with recording([block], graph=graph, **hooks):
        model(x)
    assert set(seen) == {place for place in PLACES if expected[place] is not None}
    for place, (name, value) in seen.items():
        assert name == block.name
        assert torch.equal(value, expected[place]), place
        assert value.requires_grad == graph
    seen.clear()
    model(x)
    assert not seen


@pytest.mark.parametrize(("model", "times"), [(Gated(), 2), (Merged(), 1)])
def test_what_enters_is_shown_to_each_layer_and_can_be_exchanged(model, times):
    (block,) = find_blocks(model)
    calls = []
    with recording([block], entering=lambda _, x: calls.append(x) or x + 1):
        got = model(torch.zeros(3, 8))
    assert len(calls) == times
    assert torch.equal(got, model(torch.ones(3, 8)))


def test_a_mask_fits_its_own_axes_and_flattened_ones_only():
    mask = torch.tensor([[2, 1, 0], [1, 0, 0]])
    value = torch.arange(12.0).reshape(2, 3, 2)
    wanted = torch.tensor([[0.0, 1], [2, 3], [6, 7]])
    assert torch.equal(real_tokens(value, mask), wanted)
    assert torch.equal(real_tokens(value.reshape(6, 2), mask), wanted)
    assert torch.equal(real_tokens(value, None), value.reshape(6, 2))
    assert fit_mask(mask, (3, 2)) is None  # as many entries, but of other tokens
    assert len(real_tokens(value.transpose(0, 1), mask)) == 6
