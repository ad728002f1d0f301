"""Every verb takes blocks that were found already, works on these alone, and refuses what are not its model's."""

import copy

import pytest
import torch
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.explain import explain
from lazyneuron.induce import (
    Chain,
    Distillation,
    KeepTop,
    Relufy,
    block_samples,
    compact_,
    distill,
    distill_layerwise,
    plan,
    revive_,
    sparsify_,
)
from lazyneuron.measure import measure, mlp_time_share


class Blocks(nn.Sequential):
    def __init__(self, activation=nn.ReLU):
        torch.manual_seed(0)
        super().__init__(
            *(nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 4)) for _ in range(2)),
        )
        for part in self:
            nn.init.constant_(part[0].bias[:3], -100.0)


BATCHES = [torch.randn(5, 4)]


def loss(output, _):
    return output.square().mean()


VERBS = {
    "measure": lambda m, b: measure(m, BATCHES, blocks=b),
    "share": lambda m, b: mlp_time_share(m, BATCHES, blocks=b, repeats=1),
    "explain": lambda m, b: explain(m, BATCHES, loss, blocks=b),
    "plan": lambda m, b: plan(m, KeepTop(density=0.5), blocks=b),
    "sparsify_": lambda m, b: sparsify_(m, KeepTop(density=0.5), blocks=b),
    "compact_": lambda m, b: compact_(m, BATCHES, mode="observed", blocks=b),
    "revive_": lambda m, b: revive_(m, BATCHES, blocks=b),
    "samples": lambda m, b: block_samples(m, b, batches=BATCHES),
    "distill": lambda m, b: distill(m, Blocks(), batches=BATCHES, blocks=b, config=Distillation(steps=1)),
    "layerwise": lambda m, b: distill_layerwise(
        m,
        b,
        samples=SAMPLES,
        config=Distillation(steps=1),
        generator=torch.Generator(),
    ),
}
OTHER = Blocks()
SAMPLES = block_samples(OTHER, find_blocks(OTHER), batches=BATCHES)


@pytest.mark.parametrize("verb", VERBS)
def test_blocks_of_another_model_are_refused(verb):
    model, foreign = Blocks(), find_blocks(Blocks())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="of another model"):
        VERBS[verb](model, foreign)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("verb", VERBS)
def test_outdated_blocks_are_refused(verb):
    model = Blocks(nn.GELU)
    blocks = find_blocks(model)
    sparsify_(model, Relufy())
    with pytest.raises(ConfigError, match=r"found with the activation gelu, which has changed since"):
        VERBS[verb](model, blocks)
    VERBS[verb](model, find_blocks(model))


@pytest.mark.parametrize("verb", ["measure", "explain", "plan", "sparsify_", "compact_", "revive_"])
def test_only_the_given_blocks_take_part(verb):
    model = Blocks()
    blocks = find_blocks(model)
    result = VERBS[verb](model, blocks[1:])
    names = [getattr(part, "name", None) or part.block for part in getattr(result, "changes", None) or result.blocks]
    assert names == ["1"]
    changed = {name for name, p in model.named_parameters() if not _alike(p, dict(Blocks().named_parameters())[name])}
    assert not any(name.startswith("0.") for name in changed)


def _alike(one, other):
    return one.shape == other.shape and torch.equal(one, other)


def test_a_function_that_is_not_known_makes_a_block_outdated_too():
    model = Blocks()
    blocks = find_blocks(model)
    model[1][1] = nn.PReLU()
    with pytest.raises(ConfigError, match="block '1' was found with the activation relu"):
        measure(model, BATCHES, blocks=blocks)


def test_a_chain_sees_its_given_blocks_as_they_are_after_each_recipe():
    model = Blocks(nn.GELU)
    receipt = sparsify_(model, Chain((Relufy(), KeepTop(density=0.5))), blocks=find_blocks(model)[:1])
    assert [change.block for change in receipt.changes] == ["0", "0"]
    assert [block.activation.kind for block in find_blocks(model)] == ["top_k", "gelu"]


def test_no_blocks_are_refused():
    with pytest.raises(NoBlocksError):
        measure(Blocks(), BATCHES, blocks=[])
    with pytest.raises(ConfigError, match="MLPBlocks, as find_blocks gives them"):
        measure(Blocks(), BATCHES, blocks=["0"])
