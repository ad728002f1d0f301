"""Changes are all-or-nothing and come back bitwise."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import active_changes, restore_, transaction


class Block(nn.Module):
    """An MLP whose activation is a function, a module or a method's choice."""

    def __init__(self, act):
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.act = act
        self.down = nn.Linear(8, 4)
        self.register_buffer("scale", torch.ones(()))
        self.register_parameter("absent", None)

    def forward(self, x):
        return self.down(self.act(self.up(x))) * self.scale


def fingerprint(model):
    """Everything that a restored model must share with the original, in order."""
    state = {k: v.clone() for k, v in model.state_dict(keep_vars=False).items()}
    return {
        "state": [(k, v.data_ptr()) for k, v in model.state_dict(keep_vars=True).items()],
        "values": [(k, v.numpy().tobytes()) for k, v in state.items()],
        "homes": [
            (name, home, [(key, id(value)) for key, value in getattr(module, home).items()])
            for name, module in model.named_modules()
            for home in ("_modules", "_parameters", "_buffers")
        ],
        "plain": [
            (name, sorted((k, id(v)) for k, v in vars(module).items() if not k.startswith("_")))
            for name, module in model.named_modules()
        ],
    }


def model(act=F.gelu):
    torch.manual_seed(0)
    return nn.Sequential(Block(act), Block(nn.GELU()))


CHANGES = {
    "function to function": (F.gelu, F.relu),
    "function to module": (F.gelu, nn.ReLU()),
    "module to function": (nn.GELU(), F.relu),
    "module to module": (nn.GELU(), nn.ReLU()),
    "module to None": (nn.GELU(), None),
}


@pytest.mark.parametrize("case", CHANGES)
def test_restoring_is_bitwise(case):
    old, new = CHANGES[case]
    net = model(old)
    before = fingerprint(net)
    with transaction(net, "a") as change:
        change.set(net[0], "act", new)
    assert net[0].act is new
    assert active_changes(net) == ("a",)
    restore_(net, "a")
    assert fingerprint(net) == before
    assert active_changes(net) == ()


def test_a_changed_module_keeps_its_place_in_the_state_dict():
    net = model()
    keys = list(net.state_dict())
    with transaction(net, "a") as change:
        change.set(net[0], "up", nn.Linear(4, 8))
    assert list(net.state_dict()) == keys


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("forward", lambda x: x),
        ("absent", nn.Parameter(torch.ones(2))),
        ("scale", torch.zeros(())),
        ("up", nn.Identity()),
        ("brand_new", nn.Linear(2, 2)),
        ("brand_new", 3),
    ],
)
def test_every_kind_of_attribute_comes_back(attribute, value):
    net = model()
    before = fingerprint(net)
    with transaction(net, "a") as change:
        change.set(net[0], attribute, value)
        assert getattr(net[0], attribute) is value
    restore_(net, "a")
    assert fingerprint(net) == before


def test_a_parameter_comes_back_as_the_same_object():
    net = model()
    weight = net[0].up.weight
    with transaction(net, "a") as change:
        change.set(net[0].up, "weight", nn.Parameter(torch.zeros(8, 4)))
    restore_(net, "a")
    assert net[0].up.weight is weight


def test_one_attribute_set_twice_comes_back_to_the_first():
    net = model()
    with transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
        change.set(net[0], "act", F.silu)
    restore_(net, "a")
    assert net[0].act is F.gelu


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_a_failure_in_the_middle_changes_nothing(fault):
    net = model()
    before = fingerprint(net)
    with pytest.raises(fault), transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
        change.set(net[1], "act", F.relu)
        raise fault
    assert fingerprint(net) == before
    assert active_changes(net) == ()


def test_a_value_that_the_module_refuses_rolls_back():
    net = model()
    before = fingerprint(net)
    with pytest.raises(TypeError), transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
        change.set(net[0].up, "weight", "no tensor")
    assert fingerprint(net) == before


def test_a_failed_second_change_keeps_the_first():
    net = model()
    with transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
    with pytest.raises(RuntimeError), transaction(net, "b") as change:
        change.set(net[0], "act", F.silu)
        raise RuntimeError
    assert net[0].act is F.relu
    assert active_changes(net) == ("a",)


def test_nested_changes_come_back_last_first():
    net = model()
    with transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
    with transaction(net, "b") as change:
        change.set(net[0], "act", F.silu)
    with pytest.raises(ConfigError, match="restore the later one first"):
        restore_(net, "a")
    assert net[0].act is F.silu
    restore_(net, "b")
    assert net[0].act is F.relu
    restore_(net, "a")
    assert net[0].act is F.gelu


def test_an_unknown_change_is_named():
    net = model()
    with pytest.raises(ConfigError, match="carries no change with the id 'x'"):
        restore_(net, "x")


def test_a_copy_restores_itself_and_leaves_the_original_changed():
    net = model()
    with transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
        change.set(net[1], "up", nn.Linear(4, 8))
    twin = copy.deepcopy(net)
    replaced = net[1].up
    restore_(twin, "a")
    assert twin[0].act is F.gelu and net[0].act is F.relu
    assert net[1].up is replaced and twin[1].up is not replaced
    restore_(net, "a")
    assert twin[1].up is not net[1].up
    assert torch.equal(twin[1].up.weight, net[1].up.weight)


def test_the_log_is_no_part_of_the_state():
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with transaction(net, "a") as change:
        change.set(net[0], "act", F.relu)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
