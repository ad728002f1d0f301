"""Blocks whose execution cannot be replaced say so, in one sentence each."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from lazyneuron.blocks import find, find_blocks, splice_
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.undo import transaction


def mlp(d=8, hidden=20, out=8, act=None):
    return nn.Sequential(nn.Linear(d, hidden), act or nn.ReLU(), nn.Linear(hidden, out))


class Formula:
    """The formula of a plain ReLU block."""

    def __init__(self, block):
        self.block = block

    def __call__(self, x):
        up, down = self.block.up.module, self.block.down.module
        return torch.relu(x @ up.weight.T + up.bias) @ down.weight.T + down.bias


class Spread(nn.Module):
    """A residual layer that no module stands for."""

    def __init__(self, act=None, d=8, hidden=20):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(d, hidden), act or nn.ReLU(), nn.Linear(hidden, d)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


def only(model, example=None):
    (block,) = find_blocks(model, example)
    return block


def refused(model, match):
    """The only block of the model, which must be refused with this reason, also by splice_."""
    before = ["forward" in module.__dict__ for module in model.modules()]
    block = only(model)
    assert block.refusal is not None, "not refused"
    assert match in block.refusal
    with pytest.raises(ConfigError, match="cannot be replaced"), transaction(model, "x") as change:
        splice_(change, block, lambda x: None)
    assert ["forward" in module.__dict__ for module in model.modules()] == before
    return block


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_hooks_on_parts(register, part):
    model = mlp()
    called = []
    handle = getattr(model[part], register)(lambda *args: called.append(args))
    refused(model, f"{part} has hooks, which would not be called; remove them first.")
    assert not called
    handle.remove()
    assert only(model).refusal is None


def test_hooks_on_the_activation_of_a_spread_block():
    model = Spread()
    model.act.register_forward_hook(lambda *args: None)
    refused(model, "act has hooks")


def test_hooks_on_the_whole_are_kept_and_called():
    model = mlp()
    seen = []
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    block = only(model)
    assert block.refusal is None
    with transaction(model, "x") as change:
        splice_(change, block, torch.zeros_like)
    model(torch.ones(1, 8))
    assert len(seen) == 1 and not seen[0].any()


def test_adapter():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(mlp(), peft.LoraConfig(target_modules=["0"], init_lora_weights=False))
    block = refused(model, "carries an adapter; merge it into the weight first.")
    assert block.up.name == "base_model.model.0"
    merged = model.merge_and_unload()
    assert only(merged).refusal is None


@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
    ids=["weight norm", "spectral norm", "pruning mask"],
)
def test_computed_weights(change):
    model = mlp()
    change(model[0])
    model.train()
    before = copy.deepcopy(model.state_dict())
    block = only(model)
    assert "The weight of 0 is computed from other tensors" in block.refusal
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_dynamically_quantised_layers():
    quantised = pytest.importorskip("torch.ao.nn.quantized.dynamic")
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("needs a quantised engine")
    model = nn.Sequential(quantised.Linear(8, 20), nn.ReLU(), quantised.Linear(20, 8))
    block = refused(model, "The weight of 0 is quantised (torch.qint8), not floating point.")
    assert (block.d_in, block.d_hidden, block.d_out, block.activation.kind) == (8, 20, 8, "relu")


def test_integer_weights():
    class Int8(nn.Linear):
        def __init__(self, d_in, d_out):
            super().__init__(d_in, d_out)
            scaled = (self.weight.data * 100).to(torch.int8)
            self.weight = nn.Parameter(scaled, requires_grad=False)

        def forward(self, x):
            return F.linear(x, self.weight.to(x.dtype) / 100, self.bias)

    refused(nn.Sequential(Int8(8, 20), nn.ReLU(), nn.Linear(20, 8)), "is quantised (torch.int8)")


def test_packed_layers_are_reported():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_features, self.out_features = 8, 20
            self.register_buffer("qweight", torch.zeros(8, 5, dtype=torch.int32))

    found = find(nn.Sequential(Packed(), nn.ReLU(), nn.Linear(20, 8)))
    assert [(r.name, "linear layer without a weight" in r.reason) for r in found.rejected] == [("0", True)]


def test_meta_weights():
    with torch.device("meta"):
        model = nn.ModuleDict({"mlp": mlp()})
    found = find(model)
    assert found.blocks == ()
    with pytest.raises(NoBlocksError, match=r"mlp\.0: Its weight is on the meta device; load it"):
        found.or_raise()
    model["loaded"] = mlp()
    found = find(model)
    assert [b.name for b in found.blocks] == ["loaded"]
    assert [r.name for r in found.rejected] == ["mlp.0"]


@pytest.mark.parametrize("how", ["function", "part", "method"])
def test_compiled_modules(how):
    if how == "function":
        model = torch.compile(mlp(), backend="eager")
        block = refused(
            model, "It is inside the model, which is compiled; change the original and compile it afterwards."
        )
        assert block.name == "_orig_mod"
        return
    model = nn.ModuleDict({"mlp": mlp()})
    if how == "part":
        model["mlp"] = torch.compile(model["mlp"], backend="eager")
    else:
        model["mlp"].compile(backend="eager")
    refused(model, "It is inside the module 'mlp', which is compiled")


def test_fully_sharded(tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("needs gloo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = nn.ModuleDict({"mlp": mlp()})
        fsdp.fully_shard(model["mlp"], mesh=mesh)
        found = find(model)
        reasons = [b.refusal for b in found.blocks] + [r.reason for r in found.rejected]
        assert len(reasons) == 1
        assert "The weight of mlp.0 is a DTensor; only plain tensors are supported (find the blocks" in reasons[0]
    finally:
        distributed.destroy_process_group()


def test_wrapped_by_fsdp():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._fsdp_wrapped_module = inner

        def forward(self, x):
            return self._fsdp_wrapped_module(x)

    refused(nn.ModuleDict({"part": Wrapper(mlp())}), "It is inside the module 'part', which is wrapped by FSDP")


def test_replaced_forward_of_other_code():
    model = mlp()
    model[0].forward = model[0].forward  # as libraries do that wrap it
    block = only(model)
    assert block.refusal == "The forward of 0 was replaced by other code; undo that first."


def test_spread_block_whose_output_looks_like_its_hidden_layer():
    refused(Spread(d=20, hidden=20), "its output is as wide as its hidden layer")


def test_spread_block_with_its_function_written_into_the_forward():
    class Layer(Spread):
        def forward(self, x):
            return x + self.down(F.relu(self.up(x)))

    refused(Layer(), "Its activation is written into a forward that does more than this block")


def test_merged_gate_and_up_without_a_container():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.down, self.act = nn.Linear(8, 40), nn.Linear(20, 8), nn.SiLU()

        def forward(self, x):
            a, b = self.both(x).chunk(2, -1)
            return x + self.down(self.act(a) * b)

    refused(Layer(), "Its gate and up are one layer")


def test_replacement_that_would_change_the_model():
    class Layer(Spread):
        def forward(self, x):
            y = self.down(self.act(self.up(x)))
            return y + self.up(x).sum(-1, keepdim=True)  # up serves something else too

    refused(Layer(), "Replacing its execution would change what the model computes around it.")


def test_weights_shared_with_embeddings_or_other_layers_are_no_obstacle():
    first, second = mlp(), mlp()
    second[0].weight = first[0].weight
    embedding = nn.Embedding(20, 8)
    first[0].weight = embedding.weight
    blocks = find_blocks(nn.ModuleList([embedding, first, second]))
    assert [b.refusal for b in blocks] == [None, None]


def test_a_layer_in_two_whole_blocks_is_no_obstacle():
    first, second = mlp(), mlp()
    second[0] = first[0]
    model = nn.ModuleList([first, second])
    blocks = find_blocks(model)
    assert [(b.name, b.up.name, b.refusal) for b in blocks] == [("0", "0.0", None), ("1", "1.0", None)]
    x = torch.randn(3, 8)
    expected = second(x)
    with transaction(model, "x") as change:
        splice_(change, blocks[0], torch.zeros_like)
    assert not first(x).any()
    assert torch.equal(second(x), expected)


def test_a_layer_in_two_spread_blocks():
    model = nn.ModuleList([Spread(), Spread()])
    model[1].up = model[0].up
    first, second = find_blocks(model)
    assert first.refusal == "0.up is used as 1.up too; give each its own layer."
    assert second.refusal == "1.up is used as 0.up too; give each its own layer."


def test_a_whole_layer_used_twice_is_one_block():
    layer = Spread()
    model = nn.Sequential(layer, layer)
    block = only(model)
    assert block.refusal is None
    x = torch.randn(3, 8)
    expected = model(x)
    with transaction(model, "x") as change:
        splice_(change, block, Formula(block))
    torch.testing.assert_close(model(x), expected)


def test_an_activation_module_used_outside_of_blocks():
    act = nn.ReLU()
    model = nn.ModuleDict({"layer": Spread(act), "other": nn.ModuleDict({"act": act})})
    refused(model, "Its activation module is used as other.act too; give each its own.")


def test_an_activation_module_shared_by_blocks_of_clashing_widths():
    act = nn.ReLU()
    wide, narrow = Spread(act, d=20, hidden=40), Spread(act, d=8, hidden=20)
    first, second = find_blocks(nn.ModuleList([wide, narrow]))
    assert first.refusal == "Its activation module is used by 1 too, whose hidden layer is as wide as its output."
    assert second.refusal is None


def test_an_activation_module_shared_by_spread_blocks():
    act = nn.ReLU()
    model = nn.Sequential(Spread(act), Spread(act, hidden=24))
    blocks = find_blocks(model)
    assert [(b.refusal, b.site.shared) for b in blocks] == [(None, True)] * 2
    x = torch.randn(5, 8)
    expected = model(x)
    with transaction(model, "x") as change:
        for block in blocks:
            splice_(change, block, Formula(block))
    torch.testing.assert_close(model(x), expected)


def test_a_hook_before_a_spread_block_is_called_when_it_is_replaced():
    model, x = Spread(), torch.randn(3, 8)
    called = []
    handle = only(model).up.module.register_forward_pre_hook(lambda _, args: called.append(1) or (args[0] + 1,))
    before = model(x)
    block = only(model)
    assert block.refusal is None
    seen = []
    with transaction(model, "spliced") as change:
        splice_(change, block, seen.append)
    assert torch.equal(model(x), before)
    assert len(called) == 2 and torch.equal(seen[0], x + 1)
    handle.remove()
