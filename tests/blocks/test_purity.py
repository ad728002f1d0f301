"""A search leaves no trace on the model, also when it ends in an exception."""

import copy
import random
import warnings

import pytest
import torch
from torch import nn

from lazyneuron.blocks import Activation, find, find_blocks
from lazyneuron.core.errors import DataError
from lazyneuron.core.undo import restore_
from lazyneuron.induce import KeepTop, Relufy, sparsify_
from tests.blocks.architectures import KNOWN

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Nosy(nn.Module):
    """A block that counts, caches, draws random numbers and warns whenever it runs."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.act, self.norm = nn.Linear(8, 20), nn.Linear(20, 8), nn.ReLU(), nn.BatchNorm1d(8)
        self.noise = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self.calls = 0
        self.function = torch.tanh

    def forward(self, x):
        warnings.warn("running", stacklevel=1)
        self.calls += 1
        self.cache = x
        self.count += 1
        self.register_buffer("late", torch.rand(3), persistent=False)
        random_shift = torch.rand(()) * 0
        x = self.norm(x.flatten(0, -2)).view(x.shape)
        return self.noise(self.function(self.down(self.act(self.up(x))))) + random_shift


def snapshot(model):
    return {
        name: (
            {k: id(v) for k, v in module.__dict__.items() if k != "training"},
            {k: id(v) for r in (module._modules, module._parameters, module._buffers) for k, v in r.items()},
            module.training,
            {k: dict(v) for k, v in module.__dict__.items() if "hooks" in k and v is not None},
        )
        for name, module in model.named_modules()
    }


def check_unchanged(model, look):
    torch.manual_seed(5)
    before, values = snapshot(model), copy.deepcopy(model.state_dict())
    keys, grads = list(model.state_dict()), [p.grad for p in model.parameters()]
    state, draws = torch.get_rng_state(), random.getstate()
    flags = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    look()
    assert snapshot(model) == before
    assert list(model.state_dict()) == keys
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == draws
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")) == flags


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("example", [None, torch.ones(2, 8)])
def test_a_module_that_changes_itself(training, example):
    model = nn.Sequential(Nosy(), Nosy()).train(training)
    model[0].eval()
    model[1].noise.train()
    handle = model[1].register_forward_hook(lambda *args: pytest.fail("a hook of the user was called"))
    check_unchanged(model, lambda: len(find_blocks(model, example)) == 2 or pytest.fail("not found"))
    handle.remove()


@pytest.mark.parametrize("name", ["bert", "gpt2", "encoder_layer", "t5", "llama", "switch"])
@pytest.mark.filterwarnings("ignore")
def test_architectures_in_training(name):
    model = KNOWN[name].model().train()
    loss = sum(p.sum() for p in model.parameters())
    loss.backward()
    check_unchanged(model, lambda: find(model))
    check_unchanged(model, lambda: find(model, KNOWN[name].batch))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted(error):
    class Interrupting(Nosy):
        def forward(self, x):
            super().forward(x)
            raise error

    model = nn.Sequential(Nosy(), Interrupting()).train()

    def look():
        with pytest.raises(error):
            find_blocks(model)

    check_unchanged(model, look)


def test_an_example_that_the_model_refuses():
    model = nn.Sequential(Nosy(), nn.Bilinear(8, 8, 3)).train()

    def look():
        with pytest.raises(DataError, match="cannot run on this batch"):
            find_blocks(model, torch.ones(2, 7))

    check_unchanged(model, look)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_within_other_modes(context):
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 8))
    with context(), torch.autocast("cpu", torch.bfloat16):
        check_unchanged(model, lambda: len(find_blocks(model)) == 1 or pytest.fail("not found"))


def test_default_device_and_dtype_of_the_user():
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 8))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert len(find_blocks(model)) == 1
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(find_blocks(model)) == 1


@pytest.mark.parametrize("given", [torch.relu, nn.GELU()])
@pytest.mark.parametrize("recipe", [Relufy(activation=Activation("squared_relu")), KeepTop(density=0.2)])
def test_a_copy_of_a_changed_decoder_layer_has_the_new_function(recipe, given):
    """torch's own class puts ReLU into a copy whose state has no function."""
    torch.manual_seed(0)
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 20, activation=given), 1).eval()
    x, keys = torch.randn(3, 2, 8), list(model.state_dict())
    before = model(x, x)
    receipt = sparsify_(model, recipe)
    after = model(x, x)
    assert not torch.allclose(before, after)
    assert torch.equal(copy.deepcopy(model)(x, x), after)
    clone = copy.deepcopy(model)
    for changed in (clone, model):
        restore_(changed, receipt)
        assert torch.equal(changed(x, x), before)
        assert list(changed.state_dict()) == keys
        assert changed.layers[0].activation in (given, torch.nn.functional.relu)  # what torch's class made of it
