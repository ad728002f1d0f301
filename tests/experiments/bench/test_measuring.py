"""Grid, clock, ceilings and rows."""

import dataclasses
import json

import pytest
import torch

from lazyneuron.accelerate import prepare as preparation
from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.path import GATHER
from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.core.record import Record
from lazyneuron.core.timing import Times
from lazyneuron.core.undo import active_changes
from lazyneuron.experiments.bench.blocks import certified, grid, measuring, model, row, synthetic
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built
from lazyneuron.experiments.bench.blocks.baselines.registry import BASELINES
from lazyneuron.experiments.bench.blocks.case import Case, Shape, parse_shape
from lazyneuron.experiments.bench.blocks.ceilings import needs, plain_read
from lazyneuron.experiments.bench.blocks.prepared import prepare
from lazyneuron.experiments.bench.blocks.truth import evaluate
from lazyneuron.ops.native import load

TINY = Case(
    shape=Shape(d=32, hidden=128), dtype="float32", tokens=3, density=0.1, threads=1, against=("int8", "gather")
)
native = pytest.mark.skipif(not load.status().available, reason="the native kernels are not built")


def grid_of(cases):
    return {(str(c.shape), c.dtype, c.tokens, c.density) for c in cases if c.threads == 2}


def test_the_default_grid_holds_what_the_goals_ask_for():
    cases = grid.default_grid(2)
    have = grid_of(cases)
    for dtype in ("float32", "bfloat16"):
        for shape in ("384 x 1536", "768 x 3072", "1024 x 4096", "2048 x 8192", "2048 x 8192 gated"):
            assert {(shape, dtype, t, q) for t in (1, 2, 4, 8, 16) for q in grid.DENSITIES} <= have
            assert {(shape, dtype, t, q) for t in (64, 128) for q in (1.0, 0.05, 0.01)} <= have
        assert ("2048 x 8192", dtype, 512, 0.02) in have
        assert ("4096 x 14336 gated", dtype, 1, 0.05) in have
        compared = [c for c in cases if c.against == tuple(BASELINES) and c.dtype == dtype]
        assert {(c.tokens, c.density) for c in compared} == {(t, q) for t in (1, 4, 16, 128) for q in (0.1, 0.05)}
    assert {c.threads for c in cases} == {1, 2}
    assert {c.threads for c in grid.default_grid(1)} == {1}


@pytest.mark.parametrize("make", [grid.default_grid, grid.quick_grid])
def test_weights_are_made_once(make):
    cases = make(2)
    keys = [(c.threads, c.shape, c.dtype) for c in cases]
    changes = [key for key, before in zip(keys, [None, *keys], strict=False) if key != before]
    assert len(changes) == len(set(keys))
    assert len(cases) == len(set(cases))


def test_a_chosen_grid_is_the_product_without_repetitions():
    cases = grid.chosen_grid(threads=1, shapes=["64x96:gated", "8x16"], tokens=[2, 2, 1], against=["all", "int8"])
    assert {(c.shape, c.tokens) for c in cases} == {
        (s, t) for s in (Shape(d=64, hidden=96, gated=True), Shape(d=8, hidden=16)) for t in (1, 2)
    }
    assert len(cases) == 4
    assert {c.against for c in cases} == {tuple(BASELINES)}


@pytest.mark.parametrize(
    "named",
    [
        {"shapes": ["1024"]},
        {"shapes": ["0x16"]},
        {"shapes": ["16x16:wide"]},
        {"tokens": [0]},
        {"tokens": [10**9]},
        {"densities": [0.0]},
        {"densities": [1.1]},
        {"densities": [float("nan")]},
        {"dtypes": ["float8"]},
        {"against": ["magic"]},
    ],
)
def test_values_without_meaning_are_refused(named):
    with pytest.raises(ConfigError, match="got"):
        grid.chosen_grid(threads=1, **named)


def test_shapes_are_read_and_written():
    assert parse_shape("12x34") == Shape(d=12, hidden=34)
    assert str(parse_shape("12x34:gated")) == "12 x 34 gated"
    assert parse_shape("2x3:gated").weights == 18


def test_the_wanted_share_fires():
    block = synthetic.make_block(Shape(d=64, hidden=2048), "float32", 0.05)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(5))
    for density in (0.05, 0.3, 1.0, 0.01):
        synthetic.set_density_(block, density)
        assert float(evaluate(block, x)[1].double().mean()) == pytest.approx(density, rel=0.15)


def test_weights_do_not_depend_on_the_density():
    a, b = (synthetic.make_block(Shape(d=8, hidden=16), "bfloat16", q) for q in (0.05, 0.5))
    assert torch.equal(a.up.weight, b.up.weight)
    assert torch.equal(a.down.weight, b.down.weight)


def test_what_does_not_fit_into_memory_is_a_row():
    case = dataclasses.replace(TINY, shape=Shape(d=900_000, hidden=9_000_000))
    rows = measuring.measure_cases([case, TINY], budget_s=0.0).data["rows"]
    assert "Out of memory" in rows[0]["reason"] and "GiB" in rows[0]["reason"] and "vs_dense" not in rows[0]
    assert rows[1]["vs_dense"] > 0


@pytest.mark.parametrize("gated", [False, True])
def test_needs_are_counted_as_by_hand(gated):
    # one token: the sketch d h, the exact rows 4 d c h, and 4 d a h bytes of down, and of up beside a gate
    case = dataclasses.replace(TINY, shape=Shape(d=32, hidden=128, gated=gated))
    prepared = prepare(case)
    packed = prepared.packed_for(case)
    x = torch.randn(1, 32, generator=torch.Generator().manual_seed(7))
    _, fires = evaluate(prepared.block, x)
    found = needs(packed, prepared.levels, x, fires)
    rows = round(found.computed * 128) + (2 if gated else 1) * int(fires.sum())
    assert found.bytes == 32 * 128 + 4 * 32 * rows
    assert found.flops == 2 * 32 * rows
    assert found.computed >= found.fired == pytest.approx(float(fires.float().mean()))
    assert found.missed == 0


def test_a_certificate_that_skips_what_fires_is_seen():
    prepared = prepare(TINY)
    packed = prepared.packed_for(TINY)
    packed.sketch.certificate[0] *= -1  # the sketch claims the opposite sign of everything
    x = torch.randn(8, 32, generator=torch.Generator().manual_seed(7))
    assert needs(packed, prepared.levels, x, evaluate(prepared.block, x)[1]).missed > 0.1


@pytest.mark.parametrize("density", [1.0, 0.5, 0.02])
@pytest.mark.parametrize("shape", [TINY.shape, Shape(d=32, hidden=128, gated=True)], ids=str)
def test_moving_the_bias_is_packing_anew(density, shape):
    prepared = prepare(dataclasses.replace(TINY, shape=shape))
    moved = prepared.packed_for(dataclasses.replace(TINY, density=density))
    fresh = pack(prepared.block)
    assert torch.equal(moved.first_bias, fresh.first_bias)
    assert torch.equal(moved.sketch.panels, fresh.sketch.panels)
    assert torch.equal(moved.sketch.certificate, fresh.sketch.certificate)
    assert prepared.packed_for(dataclasses.replace(TINY, density=density)) is moved


def test_a_plain_read_reads_what_it_says():
    packed = prepare(TINY).base
    call, count = plain_read(packed, 10_000)
    assert count == 10_000
    sketch = packed.sketch.panels.flatten().view(torch.int64)
    assert int(call(torch.empty(0))[0]) == int(sketch.sum())
    everything = sum(t.numel() * t.element_size() for t in (packed.sketch.panels, packed.first_rows, packed.down_rows))
    assert plain_read(packed, 10**9)[1] == everything


@native
def test_a_row_holds_speed_quality_memory_and_ceilings():
    (found,) = measuring.measure_cases([TINY], budget_s=0.0).data["rows"]
    assert json.loads(json.dumps(found)) == found
    assert found["vs_dense"] == pytest.approx(found["dense_us"] / found["ours_us"], rel=1.0)
    assert found["byte_ceiling_us"] > 0 and found["flop_ceiling_us"] >= 0 and found["rounds"] >= 7
    assert len(found["raw_ratios"]) == found["rounds"]
    low, high = found["vs_dense_quartiles"]
    assert low <= found["vs_dense"] <= high
    candidates = {c["name"]: c for c in found["candidates"]}
    assert set(candidates) == {"dense", "certified-2", "certified-1", "ours", "int8", "gather"}
    assert candidates["certified-2"]["missed"] == 0 and candidates["ours"]["error"] < 1e-5
    assert candidates["int8"]["added_bytes"] < 0 < candidates["ours"]["added_bytes"]
    assert candidates["ours"]["note"] == found["ours"]


def planted(monkeypatch, build, *, exact=True):
    baseline = Baseline(name="planted", about="", exact=exact, build=build)
    monkeypatch.setitem(BASELINES, "planted", baseline)
    (found,) = measuring.measure_cases([dataclasses.replace(TINY, against=("planted",))], budget_s=0.0).data["rows"]
    return next(c for c in found["candidates"] if c["name"] == "planted")


def test_a_wrong_method_gets_no_time(monkeypatch):
    def build(problem):
        dense = BASELINES["gather"].build(problem).run
        return Built(run=lambda x: dense(x) * 1.001)

    found = planted(monkeypatch, build)
    assert "median_us" not in found and "above" in found["reason"] and found["error"] == pytest.approx(1e-3, rel=0.01)
    assert "median_us" in planted(monkeypatch, build, exact=False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImplUnavailable("There is no compiler."), "There is no compiler."),
        (
            RuntimeError("backend='x' raised:\nNo C++ compiler\nmore"),
            "RuntimeError: backend='x' raised: No C++ compiler",
        ),
        (MemoryError(), "Out of memory."),
        (RuntimeError("[enforce fail] can't allocate memory: you tried"), "Out of memory."),
    ],
)
def test_what_cannot_be_built_is_a_row_with_its_reason(monkeypatch, error, said):
    def build(problem):
        raise error

    found = planted(monkeypatch, build)
    assert found["reason"] == said and "median_us" not in found


@native
def test_a_wrong_kernel_stops_the_row(monkeypatch):
    made = certified.make_paths

    def spoilt(packed, names):
        paths = made(packed, names)
        right = paths["certified-2"].run
        return paths | {"certified-2": dataclasses.replace(paths["certified-2"], run=lambda x: right(x) + 0.1)}

    monkeypatch.setattr(row, "make_paths", spoilt)
    (found,) = measuring.measure_cases([TINY], budget_s=0.0).data["rows"]
    assert "certified-2" in found["reason"] and "vs_dense" not in found


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_ours_is_a_model_that_was_accelerated_on_inputs_of_its_own(monkeypatch, gated):
    case = dataclasses.replace(TINY, shape=Shape(d=32, hidden=128, gated=gated), against=())
    true, models, seen = model.accelerate_, [], []

    def accelerate_(changed, batches, **options):
        batches = [*batches][:8]
        models.append(changed)
        seen.extend(batches)
        receipt = true(changed, batches, **options, impl="gather")
        assert active_changes(changed) == (receipt.id,)
        changed.register_forward_hook(lambda module, inputs, y: y * 1.001)
        return receipt

    monkeypatch.setattr(model, "accelerate_", accelerate_)
    (found,) = measuring.measure_cases([case], budget_s=0.0).data["rows"]
    # the judge saw what the hook on the model's forward had spoilt
    assert found["reason"].startswith("ours: Its error 1.0e-03") and "vs_dense" not in found
    assert {tuple(x.shape) for x in seen} == {(3, 32)} and len(seen) == 8
    measured = torch.cat(synthetic.make_inputs(case))
    assert not (torch.cat(seen)[:, None] == measured[None]).all(-1).any()
    assert active_changes(models[0]) == ()


def test_a_blocks_model_shares_its_parameters_and_nothing_else():
    block = synthetic.make_block(Shape(d=32, hidden=128, gated=True), "bfloat16", 0.1)
    made, x = model.BlockModel(block), torch.randn(5, 32).bfloat16()
    torch.testing.assert_close(made(x).float(), evaluate(block, x)[0], rtol=2e-2, atol=2e-2)
    assert made.gate.weight is block.gate.weight and made.gate is not block.gate.module


@pytest.mark.parametrize("spreads", [(1.5,), (3.0, 1.5), (3.0, 4.0)])
def test_a_noisy_row_is_measured_once_more_and_both_are_kept(monkeypatch, spreads):
    begun = []

    def compared(calls, inputs, **_):
        spread = spreads[len(begun)]
        begun.append(spread)
        times = {name: (100.0,) * 8 for name in calls}
        ours = 50.0 if len(begun) == 1 else 100.0  # the second measurement is worse, and counts
        times["ours"] = (ours,) * 4 + (ours * spread,) * 4
        return {name: Times(samples_us=samples) for name, samples in times.items()}

    monkeypatch.setattr(row, "compared", compared)
    (found,) = measuring.measure_cases([TINY], budget_s=0.0).data["rows"]
    assert tuple(begun) == spreads
    assert found["spread"] == spreads[-1]
    if len(spreads) == 1:
        assert "noisy" not in found and "first" not in found
    else:
        assert found["noisy"] and found["first"]["spread"] == spreads[0]
        assert found["first"]["vs_dense"] > found["vs_dense"]
        assert found.get("noisy_again", False) == (spreads[-1] > 2)


def test_an_interrupted_run_keeps_its_rows_and_the_threads():
    kept, threads = [], torch.get_num_threads()
    cases = [dataclasses.replace(TINY, tokens=n) for n in (1, 2, 4)]

    def stop(done, total, row):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measuring.measure_cases(cases, keep=kept.append, budget_s=0.0, watcher=stop)
    record = Record.from_json(kept[-1].to_json())
    assert record.kind == "benchmark/accelerate" and "2 of 3 rows" in record.data["title"]
    assert [r["tokens"] for r in record.data["rows"]] == [1, 2]
    assert torch.get_num_threads() == threads


def test_nothing_to_measure_is_refused():
    with pytest.raises(ConfigError, match="nothing to measure"):
        measuring.measure_cases([])


def test_without_kernels_the_rows_say_so(monkeypatch):
    monkeypatch.setattr(certified, "usable_paths", lambda: {"certified-2": "No kernels.", "gather": None})
    monkeypatch.setattr(row, "usable_paths", certified.usable_paths)
    monkeypatch.setattr(preparation, "sparse_paths", lambda: (GATHER,))
    (found,) = measuring.measure_cases([TINY], budget_s=0.0).data["rows"]
    candidates = {c["name"]: c for c in found["candidates"]}
    assert candidates["certified-2"]["reason"] == "No kernels." and found["ours"] in ("gather", "dense")
    assert sum(c["name"] == "gather" for c in found["candidates"]) == 1
