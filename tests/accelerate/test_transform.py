"""accelerate_ on whole models: same outputs, undoable, never stale."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.accelerate import transform
from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.machine.cost_model import Line
from lazyneuron.accelerate.path import CERTIFIED_1, CERTIFIED_2, DENSE, Shares
from lazyneuron.accelerate.policy.choice import Candidates, Table, bucket_of
from lazyneuron.accelerate.policy.following import REVIEW_EVERY
from lazyneuron.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ImplUnavailable,
    NoBlocksError,
)
from lazyneuron.ops.sparse_mlp import gather
from lazyneuron.ops.sparse_mlp.packed import PackedBlock
from tests.core.resealed import reseal
from tests.kernels import NATIVE, SPARSE, SPARSE_PATH, needs_kernels

GATHERED: list[PackedBlock] = []


@pytest.fixture(autouse=True)
def gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the path without kernels are counted here; it counts nothing itself."""
    real = gather.sparse_mlp

    def counted(packed: PackedBlock, x: torch.Tensor) -> torch.Tensor:
        GATHERED.append(packed)
        return real(packed, x)

    GATHERED.clear()
    monkeypatch.setattr(gather, "sparse_mlp", counted)


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(24, 200), nn.ReLU(), nn.Dropout(0.5), nn.Linear(200, 24))
    model[0].bias.data -= 0.7
    return model.eval()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 128, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.up, self.down = nn.Linear(24, 96), nn.Linear(24, 96), nn.Linear(96, 24)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))


class GatedLayer(Gated):
    """No module of its own stands for the block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.down(self.act(self.gate(y)) * self.up(y))


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        vocab_size=50,
        hidden_act="relu",
    )
    return transformers.BertModel(config).eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], object]]] = {
    "sequential": (mlp, lambda: torch.randn(40, 24)),
    "encoder": (encoder, lambda: torch.randn(2, 9, 32)),
    "gated": (lambda: Gated().eval(), lambda: torch.randn(3, 5, 24)),
    "gated layer": (lambda: GatedLayer().eval(), lambda: torch.randn(3, 5, 24)),
    "bert": (bert, lambda: {"input_ids": torch.arange(20).reshape(2, 10)}),
}


def run(model: nn.Module, batch: object) -> torch.Tensor:
    with torch.no_grad():
        output = model(**batch) if isinstance(batch, dict) else model(batch)
    return output if isinstance(output, torch.Tensor) else output.last_hidden_state


def executions(model: nn.Module) -> list[BlockExecution]:
    runs = [getattr(m.__dict__.get("forward"), "run", None) for m in model.modules()]
    return [r for r in runs if isinstance(r, BlockExecution)]


def set_table(execution: BlockExecution, table: Table) -> None:
    execution.following.table = table
    execution.current.state = execution.with_runs(execution.current.now())


def calls(model: nn.Module) -> int:
    found = executions(model)
    gathered = sum(one is e.current.state.packed for e in found for one in GATHERED)
    return gathered + sum(int(e.counts[3]) for e in found)


@pytest.mark.parametrize("name", MODELS)
def test_same_outputs_then_bitwise_back(name: str) -> None:
    build, make = MODELS[name]
    model, batch = build(), make()
    wanted, keys = run(model, batch), list(model.state_dict())
    receipt = lazy.accelerate_(model, impl=SPARSE)
    got = run(model, batch)
    assert calls(model) == len(executions(model)) == len(lazy.find_blocks(build()))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.equal(got, wanted) or name == "sequential" or not NATIVE
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    lazy.restore_(model, lazy.Receipt.from_json(receipt.to_json()))
    assert torch.equal(run(model, batch), wanted) and not executions(model)
    assert executions(twin) and torch.equal(run(twin, batch), got)
    lazy.restore_(twin, receipt)
    assert torch.equal(run(twin, batch), wanted)


@pytest.mark.parametrize("impl", ["gather", pytest.param("portable", marks=needs_kernels)])
def test_named_implementations_run(impl: str) -> None:
    model, x = mlp(), torch.randn(7, 24)
    wanted = run(model, x)
    lazy.accelerate_(model, impl=impl)
    torch.testing.assert_close(run(model, x), wanted, rtol=1e-5, atol=1e-6)


def test_with_batches_the_receipt_says_what_was_measured() -> None:
    model = mlp()
    receipt = lazy.accelerate_(model, [torch.randn(80, 24)])
    details = receipt.changes[0].details
    assert details["output_error"]["rms"] < 1e-5
    assert details["measured_us"]["1"]["dense"] > 0
    shares = details["shares"][SPARSE_PATH.name]
    z = model[0](torch.randn(4000, 24))
    assert shares["fired"] == pytest.approx(float((z > 0).float().mean()), abs=0.05)
    assert shares["computed"] >= shares["fired"]


def test_the_original_path_runs_where_it_must() -> None:
    model, x = mlp(), torch.randn(5, 24)
    plain = copy.deepcopy(model)
    lazy.accelerate_(model, impl=SPARSE)
    assert torch.equal(model(x), plain(x)) and model(x).requires_grad
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x), plain(x))
    torch.manual_seed(1)
    trained = run(model.train(), x)
    torch.manual_seed(1)
    assert torch.equal(trained, run(plain.train(), x))
    assert calls(model) == 0
    with pytest.raises(RuntimeError):
        run(model.eval(), torch.randn(5, 23))
    assert run(model, torch.randn(0, 24)).shape == (0, 24)


def test_gradients_are_those_of_the_dense_model() -> None:
    model, plain = mlp(), mlp()
    lazy.accelerate_(model, impl=SPARSE)
    x = torch.randn(6, 24, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    model(x).square().sum().backward()
    plain(y).square().sum().backward()
    assert torch.equal(x.grad, y.grad) and torch.equal(model[0].weight.grad, plain[0].weight.grad)


def _in_place(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.mul_(-1)


def _by_state_dict(model: nn.Module) -> None:
    model.load_state_dict({key: -value for key, value in model.state_dict().items()})


def _by_data(model: nn.Module) -> None:
    model[3].weight.data = model[3].weight.data * 3


def _by_parameter(model: nn.Module) -> None:
    model[0].bias = nn.Parameter(torch.ones(200))


@pytest.mark.parametrize("change", [_in_place, _by_state_dict, _by_data, _by_parameter])
def test_changed_weights_are_never_stale(change: Callable[[nn.Module], None]) -> None:
    model, plain, x = mlp(), mlp(), torch.randn(11, 24)
    lazy.accelerate_(model, impl=SPARSE)
    run(model, x)
    change(model)
    change(plain)
    torch.testing.assert_close(run(model, x), run(plain, x), rtol=1e-5, atol=1e-5)
    assert calls(model) == 1


def test_weights_that_became_nan_run_densely() -> None:
    model, x = mlp(), torch.randn(3, 24)
    lazy.accelerate_(model, impl=SPARSE)
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
    assert torch.isnan(run(model, x)[:, 0]).all()


@pytest.mark.parametrize("name", ["sequential", "encoder", "gated layer"])
def test_compile_and_export_take_the_original_path(name: str) -> None:
    """Exported, and compiled with gradients: torch's own operators, and bit for bit what the dense model says."""
    build, make = MODELS[name]
    model, x = build(), make()
    wanted = build()(x)  # with gradients, so that torch's encoder takes no fused way of its own
    lazy.accelerate_(model, impl=SPARSE)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
    assert not [n for n in program.graph.nodes if "lazyneuron" in str(n.target)]
    assert torch.equal(run(program.module(), x), wanted)
    y = torch.compile(model, backend="eager")(x)
    assert y.requires_grad and torch.equal(y, wanted)
    assert calls(model) == 0


@needs_kernels
def test_int8_weights_report_their_error() -> None:
    model, x = mlp(), torch.randn(50, 24)
    wanted = run(model, x)
    receipt = lazy.accelerate_(model, [x], weights="int8", impl=SPARSE)
    error = float((run(model, x) - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    assert 1e-5 < error < 0.05
    assert receipt.changes[0].details["output_error"]["rms"] == pytest.approx(error, rel=0.3)


@needs_kernels
def test_a_saved_int8_acceleration_of_earlier_versions_is_quantised_anew(tmp_path: Path) -> None:
    model, x = mlp(), torch.randn(5, 24)
    lazy.save(model, tmp_path, lazy.accelerate_(model, impl=SPARSE))

    def as_it_was(content: Any) -> None:
        content["receipts"][0]["config"]["weights"] = "int8"

    reseal(tmp_path / "receipts.json", as_it_was)
    again, wanted = mlp(seed=9), mlp()
    receipt = lazy.accelerate_(wanted, weights="int8")
    (made,) = lazy.load_(again, tmp_path)
    assert made.verb == receipt.verb == "quantise_" and made.config == receipt.config
    assert torch.equal(run(again, x), run(wanted, x))
    lazy.restore_(again, made)
    assert torch.equal(run(again, x), run(mlp(), x))
    reseal(tmp_path / "receipts.json", lambda content: content["receipts"][0]["config"].update(weights="int3"))
    with pytest.raises(CheckpointError, match="'keep', 'int8' or 'int4', got 'int3'"):
        lazy.load_(again, tmp_path)


def test_calibrated_reports_what_it_risks() -> None:
    model = mlp()
    receipt = lazy.accelerate_(model, [torch.randn(400, 24)], guarantee="calibrated", impl=SPARSE)
    details = receipt.changes[0].details
    assert 0 < details["slack_factor"] < 1 and 0 <= details["wrongly_skipped"] < 0.01


def test_a_calibrated_slack_is_saved_and_loaded(tmp_path: Path) -> None:
    model, x = mlp(), torch.randn(400, 24)
    receipt = lazy.accelerate_(model, [x], guarantee="calibrated", impl=SPARSE)
    lazy.save(model, tmp_path, receipt)
    again = mlp()
    (new,) = lazy.load_(again, tmp_path)
    assert new.config["guarantee"] == "calibrated"
    assert executions(again)[0].current.slack_factor == receipt.changes[0].details["slack_factor"] < 1
    assert torch.equal(run(again, x), run(model, x))


def test_a_foreign_receipt_is_refused() -> None:
    foreign = lazy.Receipt(verb="accelerate_", config={}, changes=(), notes=())
    with pytest.raises(CheckpointError, match="accelerate anew"):
        transform.accelerate_again_(mlp(), foreign)


def test_what_cannot_be_done_is_said_and_changes_nothing() -> None:
    smooth = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)).eval()
    with pytest.raises(NoBlocksError, match=r"gelu.*Relufy"):
        lazy.accelerate_(smooth)
    with pytest.raises(NoBlocksError, match="No MLP block"):
        lazy.accelerate_(nn.Linear(3, 3))
    with pytest.raises(DataError, match="no batches"):
        lazy.accelerate_(mlp(), [])
    with pytest.raises(ConfigError, match="needs batches"):
        lazy.accelerate_(mlp(), guarantee="calibrated")
    with pytest.raises(ConfigError, match="impl is one of"):
        lazy.accelerate_(mlp(), impl="cuda")
    with pytest.raises(ConfigError, match="'keep', 'int8' or 'int4', got 'int3'"):
        lazy.accelerate_(mlp(), weights="int3")  # type: ignore[arg-type]
    model = mlp()
    lazy.accelerate_(model)
    with pytest.raises(NoBlocksError, match="replaced already"):
        lazy.accelerate_(model)
    assert len(executions(model)) == 1


@needs_kernels
def test_a_level_above_the_processor_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.lazyneuron, "best_isa", lambda: 0)
    with pytest.raises(ImplUnavailable, match="not 'avx2'"):
        lazy.accelerate_(mlp(), impl="avx2")


def test_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder()
    done = []

    def failing(*args: object, **kwargs: object) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        real(*args, **kwargs)

    real = transform.splice_
    monkeypatch.setattr(transform, "splice_", failing)
    with pytest.raises(KeyboardInterrupt):
        lazy.accelerate_(model)
    assert not executions(model)


def test_blocks_that_were_found_are_taken() -> None:
    model, x = encoder(), torch.randn(2, 9, 32)
    wanted, (first, second) = run(model, x), lazy.find_blocks(model)
    assert [block.name for block in lazy.plan_acceleration(model, blocks=[second]).matched] == [second.name]
    receipt = lazy.accelerate_(model, impl=SPARSE, blocks=[second])
    assert [change.block for change in receipt.changes] == [second.name]
    torch.testing.assert_close(run(model, x), wanted, rtol=1e-5, atol=1e-5)
    assert calls(model) == 1
    with pytest.raises(ConfigError, match="replaced already"):
        lazy.accelerate_(model, blocks=[second])
    lazy.accelerate_(model, impl=SPARSE, blocks=[first])
    with pytest.raises(ConfigError, match="`blocks` are MLPBlocks"):
        lazy.plan_acceleration(encoder(), blocks=["layers.0"])  # type: ignore[list-item]


@pytest.mark.parametrize("name", MODELS)
def test_what_was_found_just_now_is_not_outdated(name: str) -> None:
    model = MODELS[name][0]()
    assert lazy.plan_acceleration(model, blocks=lazy.find_blocks(model)) == lazy.plan_acceleration(model)


def test_blocks_of_another_model_or_time_are_refused() -> None:
    model, other = mlp(), mlp()
    blocks = lazy.find_blocks(model)
    with pytest.raises(ConfigError, match="of another model, or its layers were replaced"):
        lazy.accelerate_(other, blocks=blocks)
    model[1] = nn.GELU()
    with pytest.raises(ConfigError, match="which has changed since"):
        lazy.accelerate_(model, blocks=blocks)
    model[0] = nn.Linear(24, 200)
    with pytest.raises(ConfigError, match="of another model, or its layers were replaced"):
        lazy.plan_acceleration(model, blocks=blocks)


def test_without_kernels_it_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    model, x = mlp(), torch.randn(2, 24)
    wanted = run(model, x)
    receipt = lazy.accelerate_(model, [torch.randn(64, 24)])
    torch.testing.assert_close(run(model, x), wanted, rtol=1e-5, atol=1e-6)
    assert "switched off" in receipt.notes[0]
    with pytest.raises(ImplUnavailable):
        lazy.accelerate_(mlp(), impl="native")


def test_saved_and_loaded(tmp_path: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 64), nn.GELU(), nn.Linear(64, 24)).eval()
    fresh = copy.deepcopy(model)
    first = lazy.sparsify_(model, lazy.Relufy())
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    second = lazy.accelerate_(model, impl=SPARSE)
    x = torch.randn(9, 24)
    lazy.save(model, tmp_path, first, second)  # type: ignore[arg-type]
    receipts = lazy.load_(fresh, tmp_path)  # type: ignore[arg-type]
    assert [r.verb for r in receipts] == ["sparsify_", "accelerate_"]
    torch.testing.assert_close(run(fresh, x), run(model, x))
    assert calls(fresh) == 1
    (tmp_path / "receipts.json").write_text("{")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match="does not hold a saved model"):
        lazy.load_(copy.deepcopy(model), tmp_path)  # type: ignore[arg-type]


@needs_kernels
def test_the_choice_follows_the_density() -> None:
    line = Line(fixed_us=10.0, slope_us=200.0)
    candidates = Candidates(dense_us=(100.0,) * 13, lines={CERTIFIED_2: (line,) * 13}, rows=1)
    sparse, full = {CERTIFIED_2: Shares(0.1, 0.1)}, {CERTIFIED_2: Shares(1.0, 1.0)}
    assert set(candidates.choose(sparse)) == {CERTIFIED_2} and set(candidates.choose(full)) == {DENSE}
    model = mlp()
    lazy.accelerate_(model)
    execution = executions(model)[0]
    execution.following.candidates = candidates
    set_table(execution, (CERTIFIED_2,) * 13)
    dense_input = torch.full((4, 24), 5.0) * torch.sign(model[0].weight.sum(0))
    quiet = torch.zeros(4, 24)
    model[0].weight.requires_grad_(False)
    for _ in range(REVIEW_EVERY * 2):
        run(model, torch.cat([dense_input] * 3))
    assert (execution.following.table[0] is DENSE) == (float((model[0](dense_input) > 0).float().mean()) > 0.225)
    set_table(execution, (DENSE,) * 13)
    for _ in range(1200):
        run(model, quiet)
    assert execution.following.table[0] is CERTIFIED_2


@needs_kernels
def test_a_review_at_the_same_density_keeps_the_choice() -> None:
    """One plane computes more than two: what two planes computed must not be held for what one plane would."""
    model, x = mlp(), torch.randn(4, 24)
    two, one = Line(fixed_us=20.0, slope_us=100.0), Line(fixed_us=10.0, slope_us=100.0)
    lazy.accelerate_(model)
    execution = executions(model)[0]
    execution.following.candidates = Candidates(
        dense_us=(1e6,) * 13, lines={CERTIFIED_2: (two,) * 13, CERTIFIED_1: (one,) * 13}, rows=1
    )
    shares = {}
    for path in (CERTIFIED_1, CERTIFIED_2):
        set_table(execution, (path,) * 13)
        before = execution.counts.tolist()
        run(model, x)
        computed, fired = (int(execution.counts[k]) - before[k] for k in (0, 1))
        shares[path] = Shares(computed / (4 * 200), fired / (4 * 200))
    # make the gap large enough to decide whatever this machine's kernels computed
    execution.following.shares = {
        CERTIFIED_2: shares[CERTIFIED_2],
        CERTIFIED_1: Shares(shares[CERTIFIED_2].computed + 0.2, 0.0),
    }
    for _ in range(2 * REVIEW_EVERY):
        run(model, x)
    assert set(execution.following.table) == {CERTIFIED_2}
    execution.following.shares = {}
    for _ in range(2 * REVIEW_EVERY):
        run(model, x)
    assert set(execution.following.table) == {CERTIFIED_1}


def test_buckets() -> None:
    assert [bucket_of(n) for n in (1, 2, 3, 4, 5, 512, 513, 10**9)] == [0, 1, 2, 2, 3, 9, 10, 12]


@pytest.mark.parametrize("name", MODELS)
def test_compiled_model_runs_the_sparse_path_and_sees_changed_weights(name: str) -> None:
    build, make = MODELS[name]
    model, batch = build(), make()
    lazy.accelerate_(model, impl=SPARSE)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, batch), run(model, batch))
    before = calls(model)
    run(compiled, batch)
    assert calls(model) - before == len(executions(model))
    with torch.no_grad():
        for block in lazy.find_blocks(build()):
            model.get_parameter(f"{block.down.name}.weight").mul_(-2)
    torch.testing.assert_close(run(compiled, batch), run(model, batch))


def test_compiled_model_trains_on_the_original_path() -> None:
    model, x = mlp(), torch.randn(6, 24)
    lazy.accelerate_(model, impl=SPARSE)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    wanted = mlp()
    wanted(x).square().sum().backward()
    assert calls(model) == 0
    torch.testing.assert_close(model[0].weight.grad, wanted[0].weight.grad)
