"""sparsify_: does what its plan says, all of it or nothing, and is undone bitwise."""

import copy
import json

import pytest
import torch
from torch import nn

from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import active_changes, restore_
from lazyneuron.induce import Relufy, plan, sparsify_
from tests.induce.networks import gelu_mlp, inputs


def relu_by_hand(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    (a, _, b), norm, (c, _, d) = model[0], model[1], model[2]
    return d(torch.relu(c(norm(b(torch.relu(a(x)))))))


def test_computes_the_relu_network():
    model, x = gelu_mlp(), inputs()
    wanted = relu_by_hand(gelu_mlp(), x)
    receipt = sparsify_(model, Relufy())
    assert torch.equal(model(x), wanted)
    assert [c.action for c in receipt.changes] == ["replaced", "replaced"]
    assert [b.activation.kind for b in find_blocks(model)] == ["relu", "relu"]


def test_restores_bitwise():
    model, x = gelu_mlp(), inputs()
    before, keys, printed = model(x), list(model.state_dict()), repr(model)
    receipt = sparsify_(model, Relufy())
    assert not torch.equal(model(x), before)
    restore_(model, receipt)
    assert torch.equal(model(x), before)
    assert (list(model.state_dict()), repr(model), active_changes(model)) == (keys, printed, ())


def test_state_dict_keys_stay_and_deepcopy_is_independent():
    model, x = gelu_mlp(), inputs()
    keys, before = list(model.state_dict()), model(x)
    receipt = sparsify_(model, Relufy())
    assert list(model.state_dict()) == keys
    other = copy.deepcopy(model)
    restore_(other, receipt)
    assert torch.equal(other(x), before)
    assert torch.equal(model(x), relu_by_hand(gelu_mlp(), x))


def test_twice_is_an_error_that_changes_nothing():
    model, x = gelu_mlp(), inputs()
    receipt = sparsify_(model, Relufy())
    after = model(x)
    with pytest.raises(NoBlocksError, match="already relu"):
        sparsify_(model, Relufy())
    assert active_changes(model) == (receipt.id,)
    assert torch.equal(model(x), after)


def test_plan_is_pure_and_true():
    model, x = gelu_mlp(), inputs()
    before, printed = model(x), repr(model)
    proposal = plan(model, Relufy(blocks=("2*", "nothing*")))
    assert torch.equal(model(x), before)
    assert (repr(model), active_changes(model)) == (printed, ())
    assert proposal.replaced == ("2",)
    assert proposal.unmatched == ("nothing*",)
    receipt = sparsify_(model, Relufy(blocks=("2*", "nothing*")))
    assert receipt.changes == proposal.changes
    assert "nothing*" in receipt.notes[0]


def test_blocks_can_get_functions_of_their_own():
    model, x = gelu_mlp(), inputs()
    sparsify_(model, Relufy(per_block={"2": Activation("fatrelu", (0.4,))}))
    (a, _, b), norm, (c, _, d) = model[0], model[1], model[2]
    z = c(norm(b(torch.relu(a(x)))))
    assert torch.equal(model(x), d(torch.where(z > 0.4, z, 0.0)))


def test_nothing_half_done_when_a_block_fails(monkeypatch):
    import lazyneuron.induce.recipes.relufy as room

    model, x = gelu_mlp(), inputs()
    before, calls = model(x), []
    real = room.replace_activation_

    def second_fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(room, "replace_activation_", second_fails)
    with pytest.raises(KeyboardInterrupt):
        sparsify_(model, Relufy())
    assert torch.equal(model(x), before)
    assert active_changes(model) == ()


def test_models_without_blocks_are_refused():
    with pytest.raises(NoBlocksError, match="No MLP block"):
        sparsify_(nn.Sequential(nn.Linear(3, 3)), Relufy())
    with pytest.raises(NoBlocksError, match="No pattern matches"):
        sparsify_(gelu_mlp(), Relufy(blocks=("nothing*",)))


def test_bad_configs():
    with pytest.raises(ConfigError, match="zero nowhere"):
        Relufy(activation=Activation("gelu"))
    with pytest.raises(ConfigError, match="tuple"):
        Relufy(blocks="all")


def test_config_and_receipt_survive_json():
    config = Relufy(blocks=("a*", "b"), per_block={"b": Activation("fatrelu", (0.25,))})
    assert Relufy.from_data(json.loads(json.dumps(config.to_data()))) == config
    receipt = sparsify_(gelu_mlp(), Relufy())
    assert Receipt.from_json(receipt.to_json()) == receipt
    for wrong in ({}, {"config": "Other"}, {**config.to_data(), "activation": ["unheard"]}, {"config": "Relufy"}):
        with pytest.raises(CheckpointError, match="no Relufy config"):
            Relufy.from_data(wrong)
