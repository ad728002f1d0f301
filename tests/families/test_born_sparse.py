"""Families that are sparse as they come: every block runs sparsely in every format, and the page says so."""

import copy

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.execution import every_neuron
from lazyneuron.blocks import find
from lazyneuron.blocks.gaussian_top_k import AFTER, gaussian_top_k
from lazyneuron.core.errors import ShapeError
from lazyneuron.induce import KeepTop
from lazyneuron.ops.quantised import reference, selected
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from tests.families.born_sparse import FAMILIES, MARKED, PAGE, DReLU, row
from tests.families.verbs import outputs
from tests.kernels import needs_kernels

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore")]  # other libraries' own
SLOW = {"detr", "pegasus", "chronos", "t5"}  # alike to others, and the slowest
EACH = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES]


@pytest.mark.parametrize("name", EACH)
def test_every_block_runs_sparsely_in_every_format(name, one_thread):
    found = row(name)
    lines = MARKED.search(PAGE.read_text(encoding="utf-8"))[0].splitlines()
    assert "| " + " | ".join(map(str, found.values())) + " |" in lines, "run python -m tests.families.born_sparse"
    assert found["keep"] == ("dense" if name == "gemma3n" else "certified")
    assert [found[what] for what in ("int8", "int4")] == ["quantised", "quantised"]


def test_the_page_has_a_line_for_every_family():
    table = MARKED.search(PAGE.read_text(encoding="utf-8"))[0]
    assert len(table.splitlines()) == len(FAMILIES) + 4 and all(family.title in table for family in FAMILIES.values())


@pytest.mark.parametrize("name", ["prosparse", "turbosparse", "arcee", "gemma3n"])
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_sparse_execution_has_the_bits_of_every_neuron_and_of_the_layers(name, form):
    family = FAMILIES[name]
    model = family.model()
    lazy.accelerate_(model, weights=form, rest=form)
    sparse = outputs(model, family.batch)
    with every_neuron(model):
        assert all(map(torch.equal, outputs(model, family.batch), sparse))
    layers = copy.deepcopy(model)
    for block in lazy.status(layers).blocks:  # a hook makes the layers run
        layers.get_submodule(block.block).down_proj.register_forward_hook(lambda *_: None)
    one_by_one = outputs(layers, family.batch)
    assert all(b.sparse_calls < b.calls and "hooks" in b.last for b in lazy.status(layers).blocks)
    for got, wanted in zip(sparse, one_by_one, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def gemma(dtype: torch.dtype, sparsity: float, act: str = "gelu_pytorch_tanh") -> nn.Module:
    from transformers import Gemma3nTextConfig
    from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextMLP

    config = Gemma3nTextConfig(
        hidden_size=64, intermediate_size=512, num_hidden_layers=1, activation_sparsity_pattern=[sparsity],
        layer_types=["full_attention"], hidden_activation=act,
    )  # fmt: skip
    torch.manual_seed(1)
    return nn.Sequential(Gemma3nTextMLP(config, 0)).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("sparsity", "density"), [(0.95, 0.05), (0.9, 0.1), (0.8, 0.2), (0.5, 0.5)])
def test_the_gaussian_rule_is_told_from_its_values(dtype, sparsity, density):
    (block,) = find(gemma(dtype, sparsity)).blocks
    assert (block.activation.kind, block.activation.parameters) == ("gaussian_top_k_gelu_tanh", (density,))
    assert not block.activation.elementwise and block.refusal is None


def test_other_functions_after_the_cut_are_told_apart():
    for act, kind in (("gelu", "_gelu"), ("silu", "_silu"), ("relu", "")):
        (block,) = find(gemma(torch.float32, 0.9, act)).blocks
        assert (block.activation.kind, block.activation.parameters) == (f"gaussian_top_k{kind}", (0.1,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_the_rule_runs_exactly_as_the_model_has_it(dtype, tokens):
    model = gemma(dtype, 0.95)
    lazy.accelerate_(model, weights="int8")
    x = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    mlp = model[0]
    with torch.no_grad():
        got = model(x)
        wanted = mlp.down_proj(mlp.act_fn(mlp._gaussian_topk(mlp.gate_proj(x))) * mlp.up_proj(x))
        survive = mlp._gaussian_topk(mlp.gate_proj(x)) != 0
    assert torch.equal(got, wanted)
    (status,) = lazy.status(model).blocks
    assert status.last == "quantised" and status.fired == pytest.approx(float(survive.float().mean()), abs=1e-6)


def test_with_kept_weights_it_runs_densely_and_says_why():
    model = gemma(torch.float32, 0.95)
    with pytest.raises(lazy.core.errors.NoBlocksError, match=r"depends on the whole token.*weights='int8' or 'int4'"):
        lazy.accelerate_(model)
    model = nn.Sequential(*model, nn.Linear(64, 64)).eval()
    lazy.accelerate_(model, rest="int8")  # the last layer; the block keeps its weights
    found = lazy.status(model)
    assert found.blocks == () and list(found.dense) == ["0"]
    why = "Its weights are kept. What fires under gaussian_top_k_gelu_tanh depends on the whole token"
    assert found.dense["0"].startswith(why) and f"0: dense: {why}" in str(found)
    relu = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    both = nn.Sequential(gemma(torch.float32, 0.95), relu).eval()
    lazy.accelerate_(both, impl="native")
    found = lazy.status(both)
    assert len(found.blocks) == 1 and [why.split(" depends")[0] for why in found.dense.values()] == [
        "What fires under gaussian_top_k_gelu_tanh"
    ]


def test_another_rule_set_later_is_the_rule_that_runs():
    model = gemma(torch.float32, 0.95)
    x = torch.randn(3, 64)
    lazy.accelerate_(model, weights="int8")
    with torch.no_grad():
        before = model(x)
        model[0].activation_sparsity = 0.5
        for _ in range(70):
            model(x)
        after = model(x)
    assert not torch.equal(before, after) and "Settings" in lazy.status(model).blocks[0].last


def test_a_single_neuron_has_no_deviation():
    with pytest.raises(ShapeError, match="at least 2 neurons"):
        gaussian_top_k(AFTER[""])(torch.ones(2, 1), 0.1)


def test_a_function_on_both_factors_cannot_be_exchanged_for_one():
    model = nn.Sequential(DReLU(64, 128)).eval()
    (block,) = find(model).blocks
    assert block.rectifies_up and block.site is None and block.activation.kind == "relu"
    with pytest.raises(lazy.core.errors.NoBlocksError, match="written into a forward"):
        lazy.sparsify_(model, lazy.Relufy(activation=lazy.blocks.Activation("squared_relu")))
    x = torch.randn(4, 64)
    lazy.measure(model, [x], blocks=[block])
    lazy.accelerate_(model, weights="int8")
    model[0].act_fn = nn.SiLU()
    mlp = model[0]
    with torch.no_grad():
        wanted = mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.act_fn(mlp.up_proj(x)))
        assert torch.equal(model(x), wanted)


class SignedFactor(DReLU):
    """Near misses: the second factor clipped at another place, or with a slope."""

    def __init__(self, other) -> None:
        super().__init__(64, 128)
        self.other = other

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.other(self.up_proj(x)))


@pytest.mark.parametrize(
    "other", [lambda u: torch.relu(u - 0.1), lambda u: torch.relu(u).square(), lambda u: torch.relu(u).clamp(max=1.0)]
)
def test_other_second_factors_are_taken_for_what_they_are(other):
    model = nn.Sequential(SignedFactor(other)).eval()
    x = torch.randn(6, 64) * 3
    for block in find(model).blocks:  # with the roles exchanged: some function times relu(gate)
        assert block.activation.kind in ("other", "squared_relu") and block.up.name == "0.gate_proj"
        with torch.no_grad():
            torch.testing.assert_close(block.forward(x), model(x))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_the_second_half_is_its_definition(gated, bits, share):
    form = Format(bits=bits)
    g = torch.Generator().manual_seed(4)
    x, s = torch.randn(3, 5, 64, generator=g), torch.randn(3, 5, 200, generator=g)
    s = s * (torch.rand(s.shape, generator=g) < share)
    up = quantise_rows(torch.randn(200, 64, generator=g), form)
    down = quantise_columns(torch.randn(32, 200, generator=g), form)
    bias, down_bias = torch.randn(200, generator=g), torch.randn(32, generator=g)
    counts = torch.zeros(4, dtype=torch.int64)
    factor = (up.bytes, up.scale, bias) if gated else (None, None, None)
    arguments = (x, s, *factor, True, down.bytes, down.scale, down_bias, counts, bits, 32)
    got = selected.op()(*arguments, False)
    u = reference.linear(x, up, bias).clamp(min=0) if gated else 1.0
    wanted = reference.down(s.double() * u, down, down_bias)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert counts.tolist() == [int((s != 0).sum())] * 2 + [15, 1]
    assert torch.equal(got, selected.op()(*arguments, True))
    torch.library.opcheck(selected.op(), (*arguments, False), test_utils=("test_schema", "test_faketensor"))


def test_the_top_k_recipes_are_executed_by_their_own_rule():
    model = FAMILIES["prosparse"].model()
    lazy.sparsify_(model, KeepTop(density=0.05))
    lazy.accelerate_(model, weights="int8", rest="int8")
    sparse = outputs(model, FAMILIES["prosparse"].batch)
    assert all(b.last == "quantised" and b.fired < 0.06 for b in lazy.status(model).blocks)
    with every_neuron(model):
        assert all(map(torch.equal, outputs(model, FAMILIES["prosparse"].batch), sparse))
