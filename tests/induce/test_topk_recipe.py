"""The top-k recipe: as many neurons as asked for, undone bitwise, saved and loaded."""

import json

import pytest
import torch

from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError
from lazyneuron.core.undo import restore_
from lazyneuron.induce import DoublyBiased, KeepTop, StatisticalTopK, plan, sparsify_
from lazyneuron.save import load_, save
from tests.blocks.architectures import KNOWN
from tests.induce.networks import gelu_mlp, inputs
from tests.induce.test_doubly_biased import Block, tokens


def test_computes_the_top_neurons_and_restores():
    model, x = gelu_mlp(), inputs()
    before = model(x)
    receipt = sparsify_(model, KeepTop(density=0.125))
    (a, _, b), norm, (c, _, d) = model

    def top(z):
        return torch.where(z >= z.sort(-1).values[:, -3:-2], torch.relu(z), 0.0)

    torch.testing.assert_close(model(x), d(top(c(norm(b(top(a(x))))))))
    restore_(model, receipt)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", ["bert", "vit", "opt", "t5", "llama"])
def test_on_real_architectures(name, tmp_path):
    known = KNOWN[name]
    model, config = known.model(), KeepTop(density=0.1, statistical=True)
    assert len(plan(model, config).replaced) == known.count
    receipt = sparsify_(model, config)
    assert sum(isinstance(m, StatisticalTopK) for m in model.modules()) == known.count
    save(model, tmp_path, receipt)
    other = known.model()
    load_(other, tmp_path)
    with torch.no_grad():
        assert torch.equal(model(**known.batch)[0], other(**known.batch)[0])


def test_combines_with_the_other_recipe(tmp_path):
    model, x = Block(), tokens()
    first = sparsify_(model, DoublyBiased(jsrelu=False))
    second = sparsify_(model, KeepTop(density=0.1))
    save(model, tmp_path, first, second)
    other = Block()
    load_(other, tmp_path)
    assert torch.equal(model(x), other(x))
    restore_(model, second)
    restore_(model, first)
    assert torch.equal(model(x), Block()(x))


def test_bad_configs_and_blocks():
    config = KeepTop(density=0.25, blocks=("a", "b*"), straight_through=False)
    assert KeepTop.from_data(json.loads(json.dumps(config.to_data()))) == config
    with pytest.raises(CheckpointError, match="no KeepTop"):
        KeepTop.from_data({"config": "KeepTop"})
    for wrong in ({"density": 0.0}, {"density": 0.1, "blocks": "all"}):
        with pytest.raises(ConfigError):
            KeepTop(**wrong)
    with pytest.raises(NoBlocksError, match="written into a forward"):
        sparsify_(KNOWN["written_out"].model(), KeepTop(density=0.1))
