"""The doubly biased recipe: what it computes, on which models, and how it is projected, saved and undone."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError, ShapeError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import active_changes, restore_
from lazyneuron.induce import DoublyBiased, JSReLU, ZerothBias, parameter_groups, plan, project_, sparsify_
from lazyneuron.save import load_, save
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN
from tests.induce.test_modules import Gemma

NAMED = ["encoder_layer", "bert", "vit", "t5", "t5_gated", "llama", "phi3", "gemma", "gated_spread", "nemotron"]


class Block(nn.Module):
    """A pre-norm block with a residual path, every part at hand."""

    def __init__(self, d: int = 6, hidden: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d))
        nn.init.normal_(self.norm.bias)
        nn.init.uniform_(self.norm.weight, -2, 2)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


def tokens(*, batch: int = 3, length: int = 5, d: int = 6) -> torch.Tensor:
    return torch.randn(batch, length, d, generator=torch.Generator().manual_seed(2))


def outputs(model: nn.Module, batch: dict) -> torch.Tensor:
    with torch.no_grad():
        y = model(**batch)
    return y if isinstance(y, torch.Tensor) else y[0]


def biases(model: nn.Module) -> list[ZerothBias]:
    return [m for m in model.modules() if isinstance(m, ZerothBias)]


def train(model: nn.Module, x: torch.Tensor, *, steps: int = 3, first: int = 0, project: bool = True) -> None:
    optimizer = torch.optim.SGD(parameter_groups(model, 0.1), lr=0.3)
    for step in range(first, first + steps):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if project:
            project_(model, step=step + 1)


@pytest.mark.parametrize("position", ["input", "output"])
def test_computes_what_the_parts_compute(position):
    model, x = Block(), tokens()
    sparsify_(model, DoublyBiased(position=position, max_len=8, bound=None))
    (bias,) = biases(model)
    nn.init.normal_(bias.bias)
    d, (up, _, down) = bias.bias[:5], model.mlp
    h = nn.functional.layer_norm(x, (6,), model.norm.weight)
    p = up(h + d if position == "input" else h)
    y = down(torch.where(p > 0, ((p + 1) ** 2 - 1) / 2, 0.0))
    torch.testing.assert_close(model(x), x + (y if position == "input" else y + d))


@pytest.mark.parametrize(
    "off", [{"jsrelu": False}, {"zeroth_bias": False}, {"norm_floor": None}, {"per_position": False}]
)
def test_each_component_alone(off):
    model, before = Block(), Block()
    sparsify_(model, DoublyBiased(**off))
    assert isinstance(model.mlp[1], JSReLU) == off.get("jsrelu", True)
    assert len(biases(model)) == off.get("zeroth_bias", True)
    assert torch.equal(model.norm.bias, before.norm.bias) == ("norm_floor" in off)
    if "per_position" in off:
        assert biases(model)[0].bias.shape == (1, 6)
    project_(model)
    assert bool(model.norm.weight.detach().abs().min() >= 1) == ("norm_floor" not in off)


@pytest.mark.parametrize("name", NAMED)
def test_on_real_architectures(name):
    known = KNOWN[name]
    model = known.model()
    before, state = outputs(model, known.batch), copy.deepcopy(model.state_dict())
    proposal = plan(model, DoublyBiased())
    assert len(proposal.replaced) == known.count, proposal
    receipt = sparsify_(model, DoublyBiased())
    assert "left padding" in receipt.notes[0]
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert len(biases(model)) == known.count
    for bias in biases(model):
        nn.init.constant_(bias.bias, 0.05)
    changed = outputs(model, known.batch)
    assert not torch.allclose(changed, before)
    assert {b.activation.kind for b in find_blocks(model)} == {"jsrelu"}
    twin = copy.deepcopy(model)
    for bias in biases(twin):
        nn.init.constant_(bias.bias, -0.05)
    assert not torch.allclose(outputs(twin, known.batch), changed)
    assert torch.equal(outputs(model, known.batch), changed)
    restore_(model, receipt)
    assert torch.equal(outputs(model, known.batch), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), state.values(), strict=True))


@pytest.mark.parametrize("name", NAMED)
def test_the_bias_reaches_the_output_of_every_block(name):
    known = KNOWN[name]
    model = known.model()
    sparsify_(model, DoublyBiased(jsrelu=False, norm_floor=None))
    y = model(**known.batch)
    (y if isinstance(y, torch.Tensor) else y[0]).square().sum().backward()
    assert all(bool((b.bias.grad != 0).any()) for b in biases(model))


def test_flattened_tokens_are_refused_at_plan():
    known = KNOWN["opt"]
    model = known.model()
    assert {c.reason for c in plan(model, DoublyBiased()).changes} == {
        "It is given its tokens flattened, without their positions; use per_position=False."
    }
    with pytest.raises(NoBlocksError, match="flattened"):
        sparsify_(model, DoublyBiased())
    receipt = sparsify_(model, DoublyBiased(per_position=False))
    assert [c.action for c in receipt.changes] == ["replaced"] * known.count
    assert "sum over them" in receipt.notes[0]


def test_blocks_that_do_not_fit_are_named():
    with pytest.raises(NoBlocksError, match="written into a forward"):
        sparsify_(KNOWN["written_out"].model(), DoublyBiased(zeroth_bias=False, norm_floor=None))
    bare = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 6))
    with pytest.raises(NoBlocksError, match="No norm"):
        sparsify_(bare, DoublyBiased())
    sparsify_(bare, DoublyBiased(zeroth_bias=False, norm_floor=None))
    assert isinstance(bare[1], JSReLU)
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 1, enable_nested_tensor=False)
    with pytest.raises(NoBlocksError, match="batch_first"):
        sparsify_(layer, DoublyBiased(jsrelu=False))


def test_twice_is_an_error_and_failure_leaves_no_trace(monkeypatch):
    model, x = nn.Sequential(Block(), Block()), tokens()
    before, keys = model(x), list(model.state_dict())
    real, calls = DoublyBiased.install_, []

    def second_fails(*args, **options):
        real(*args, **options)
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(DoublyBiased, "install_", second_fails)
    with pytest.raises(KeyboardInterrupt):
        sparsify_(model, DoublyBiased())
    assert torch.equal(model(x), before)
    assert (list(model.state_dict()), active_changes(model)) == (keys, ())
    monkeypatch.undo()
    sparsify_(model, DoublyBiased())
    after = model(x)
    with pytest.raises(NoBlocksError, match="already"):
        sparsify_(model, DoublyBiased())
    assert torch.equal(model(x), after)


def test_constraints_hold_after_training():
    model, x = Block(), tokens()
    sparsify_(model, DoublyBiased(max_len=5, bound=0.01))
    train(model, x, project=False)
    receipt = project_(model)
    assert receipt.changes[0].details["bias_moved"] > 0
    state = model.state_dict()
    assert state["norm.weight"].abs().min() >= 1
    assert bool((state["norm.zeroth_bias.bias"].abs() <= 0.01 * state["norm.weight"].abs() * (1 + 1e-6)).all())
    again = project_(model)
    assert (again.changes[0].details["bias_moved"], again.changes[0].details["scales_moved"]) == (0, 0)
    assert len(parameter_groups(model, 0.1)) == 2
    assert parameter_groups(model, 0.1)[1]["params"] == [model.norm.zeroth_bias.bias]


def test_recorded_projection_is_undone_bitwise():
    model, x = Block(), tokens()
    made = sparsify_(model, DoublyBiased.for_finetuning(10))
    train(model, x, project=False)
    before, mix = model(x), model.mlp[1].mix
    receipt = project_(model, step=5, record=True)
    assert model.mlp[1].mix == 0.5
    assert not torch.equal(model(x), before)
    restore_(model, receipt)
    assert (model.mlp[1].mix, mix) == (0.0, 0.0)
    assert torch.equal(model(x), before)
    project_(model, step=5)
    assert active_changes(model) == (made.id,)


def test_ramps():
    model = Block()
    kept = model.norm.bias.detach().clone()
    sparsify_(model, DoublyBiased.for_finetuning(10))
    assert torch.equal(model(tokens()), Block()(tokens()))
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (20, 1.0)):
        nn.init.constant_(model.norm.weight, 0.25)
        details = project_(model, step=step).changes[0].details
        assert (details["mix"], details["floor"], model.mlp[1].mix) == (share, share, share)
        assert model.norm.weight.tolist() == [max(0.25, share)] * 6
    assert torch.equal(model.norm.bias, kept)
    assert not model.norm.bias.requires_grad
    with pytest.raises(ConfigError, match="number of steps"):
        project_(model)
    with pytest.raises(ConfigError, match="no recipe"):
        project_(Block())


@pytest.mark.parametrize("wrong", ["3", 2.5, True, -1, math.nan, math.inf, [1]])
def test_steps_that_are_none(wrong):
    for recipe in (DoublyBiased(), DoublyBiased.for_finetuning(10)):
        model = Block()
        sparsify_(model, recipe)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConfigError, match="The number of steps made is a whole number"):
            project_(model, step=wrong)
        assert str(model.state_dict()) == str(before)
    receipt = project_(model, step=np.int64(5))
    assert json.loads(receipt.to_json())["config"]["step"] == 5 and model.mlp[1].mix == 0.5


def test_groups_of_parameters():
    model = Block()
    sparsify_(model, DoublyBiased(max_len=5))
    (whole,) = parameter_groups(model, 0.1, decay_zeroth_bias=True)
    assert (len(whole["params"]), whole["weight_decay"]) == (6, 0.1)
    for wrong in ("x", None, -1, -0.1, math.nan, math.inf, [0.1], True):
        with pytest.raises(ConfigError, match=r"`weight_decay` is a .*number"):
            parameter_groups(model, wrong)
    with pytest.raises(ConfigError, match="`decay_zeroth_bias` is True or False, got 'no'"):
        parameter_groups(model, 0.1, decay_zeroth_bias="no")
    for wrong in (None, [model], Block, list(model.parameters())):
        with pytest.raises(ConfigError, match="A model is"):
            parameter_groups(wrong, 0.1)
    assert parameter_groups(model.requires_grad_(False), 0.1) == []


def test_saved_in_the_middle_of_a_ramp_goes_on_the_same(tmp_path):
    model, x = Block(), tokens()
    receipt = sparsify_(model, DoublyBiased.for_finetuning(8))
    train(model, x, steps=3)
    save(model, tmp_path, receipt)
    resumed = Block()
    load_(resumed, tmp_path)
    assert resumed.mlp[1].mix == 3 / 8
    assert torch.equal(resumed(x), model(x))
    for m in (model, resumed):
        train(m, x, steps=3, first=3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_loading_into_another_model_leaves_it_alone(tmp_path):
    model = Block()
    save(model, tmp_path, sparsify_(model, DoublyBiased()))
    other = Block(d=8)
    before = other(tokens(d=8))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_(other, tmp_path)
    assert torch.equal(other(tokens(d=8)), before)
    assert active_changes(other) == ()


def test_cached_decoding_is_refused_and_long_input_too():
    model = KNOWN["gpt2"].model()
    ids = KNOWN["gpt2"].batch["input_ids"]
    sparsify_(model, DoublyBiased(max_len=7))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ShapeError, match="cached"):
        model(input_ids=ids[:, :1], past_key_values=cache)
    with pytest.raises(ShapeError, match="knows 7 positions"):
        model(input_ids=ids.repeat(1, 2))


def test_bad_configs_and_json():
    config = DoublyBiased(blocks=("a*",), cap=4.0, position="output", per_position=False, max_len=9, mixing_steps=3)
    assert DoublyBiased.from_data(json.loads(json.dumps(config.to_data()))) == config
    for wrong in ({}, {"config": "Relufy"}, {**config.to_data(), "unheard": 1}, {**config.to_data(), "bound": -1}):
        with pytest.raises(CheckpointError, match="no DoublyBiased"):
            DoublyBiased.from_data(wrong)
    for options in (
        {"blocks": "all"},
        {"jsrelu": False, "zeroth_bias": False, "norm_floor": None},
        {"position": "middle"},
        {"norm_bias": "lose"},
        {"bound": -0.1},
        {"max_len": 0},
        {"norm_floor": math.inf},
        {"mixing_steps": -1},
        {"jsrelu": False, "mixing_steps": 5},
        {"norm_floor": None, "uplift_steps": 5},
        {"cap": -1.0},
    ):
        with pytest.raises(ConfigError):
            DoublyBiased(**options)


WRONG = {
    "whole number": {"max_len": [2.5, 7.0, True, "7", math.nan, 0]}
    | {name: [2.5, True, "10", None, math.nan, math.inf, -1] for name in ("mixing_steps", "uplift_steps")},
    "number": {
        "bound": ["x", True, math.nan, math.inf, -0.1],
        "cap": ["x", "2", True, 0, math.nan],
        "norm_floor": ["1", True, 0.0, math.nan, math.inf],
        "noise_rho": ["a", True, 0.0, math.nan, math.inf],
    },
    "True or False": {
        name: ["no", 1, None, math.nan] for name in ("jsrelu", "zeroth_bias", "per_position", "noise_skip")
    },
}


@pytest.mark.parametrize(
    ("said", "name", "wrong"),
    [(said, name, wrong) for said, fields in WRONG.items() for name, values in fields.items() for wrong in values],
)
def test_fields_of_the_wrong_kind(said, name, wrong):
    with pytest.raises(ConfigError, match=rf"^`{name}` is (a |a finite )?{said}.*, got \S+\.$"):
        DoublyBiased(**{"noise_rho": 0.1, name: wrong})


@pytest.mark.parametrize("steps", ["3000", None, 2.5, True, -1, math.nan, math.inf])
def test_steps_of_finetuning(steps):
    assert DoublyBiased.for_finetuning(0) == DoublyBiased(norm_bias="freeze")
    with pytest.raises(ConfigError, match=r"^`steps` is a whole number"):
        DoublyBiased.for_finetuning(steps)


@pytest.mark.parametrize("name", ["encoder_layer", "bert", "vit", "t5", "t5_gated", "llama", "phi3", "gemma"])
def test_sparse_execution_computes_the_same(name, monkeypatch):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    known = KNOWN[name]
    model = known.model()
    sparsify_(model, DoublyBiased())
    for bias in biases(model):
        nn.init.normal_(bias.bias)
    wanted = outputs(model, known.batch)
    receipt = accelerate_(model, impl="gather")
    assert [c.action for c in receipt.changes] == ["accelerated"] * known.count
    torch.testing.assert_close(outputs(model, known.batch), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile itself
def test_compiles():
    model, x = Block(), tokens()
    sparsify_(model, DoublyBiased())
    nn.init.normal_(biases(model)[0].bias)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))


def test_clip_uses_the_true_scale_without_a_floor():
    model = Block()
    model.norm = Gemma(6)
    sparsify_(model, DoublyBiased(norm_floor=None, bound=0.5))
    nn.init.constant_(biases(model)[0].bias, 3.0)
    project_(model)
    assert torch.equal(biases(model)[0].bias, torch.full((512, 6), 0.5))


def test_layers_wrapped_by_an_adapter():
    peft = pytest.importorskip("peft")
    model, x = Block(), tokens()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["mlp.0", "mlp.2"], r=2))
    sparsify_(wrapped, DoublyBiased(norm_bias="freeze", norm_floor=0.01))
    nn.init.normal_(biases(wrapped)[0].bias)
    up, _, down = (model.mlp[i] for i in range(3))
    p = up.base_layer(model.norm(x) + biases(wrapped)[0].bias[:5])
    torch.testing.assert_close(wrapped(x), x + down.base_layer(torch.relu(p) + torch.relu(p) ** 2 / 2))
    wrapped(x).square().sum().backward()
    assert up.lora_B["default"].weight.grad is not None
