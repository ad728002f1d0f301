"""The whole benchmark on shapes of a few layers, and what its numbers mean."""

import dataclasses

import pytest
import torch

from lazyneuron.core.errors import ConfigError, LazyNeuronError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench import generate
from lazyneuron.experiments.bench.generation import cases, measuring, models, page, turns
from lazyneuron.experiments.bench.generation.cases import EVERY, ONE, OURS, PREFILL, Case
from lazyneuron.experiments.bench.generation.engines import Ours
from lazyneuron.experiments.bench.generation.peers import peer
from lazyneuron.experiments.bench.generation.shapes import LLAMA_1B, SMALL, SMALL_PLAIN, TINYLLAMA, Shape
from lazyneuron.experiments.experiment import Request
from tests.experiments.bench.generation.test_peer import FAKE
from tests.kernels import needs_kernels

TINY = Shape(name="tiny", family="llama", width=128, hidden=256, layers=2, heads=4, kv_heads=2, vocabulary=128)
TINY_PLAIN = dataclasses.replace(TINY, name="tiny plain", family="opt", kv_heads=4)
EFFORT = measuring.Effort(rounds=2, tokens=3, prompt=20, prefills=2)


class Steady:
    def __init__(self, threads):
        self.threads = threads

    def gbps(self):
        return 10.0


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(generate, "QUICK", EFFORT)
    monkeypatch.setattr(generate, "Reading", Steady)
    monkeypatch.setattr(turns, "_PAUSE_S", 0.0)


def case(density=0.05, shape=TINY, weights="int8", rest="int8"):
    return Case(shape=shape, weights=weights, rest=rest, density=density)


@needs_kernels
@pytest.mark.parametrize("shape", [TINY, TINY_PLAIN])
@pytest.mark.parametrize("density", [0.05, 0.30, 1.0])
def test_the_share_that_fires_is_the_one_asked_for(shape, density):
    ours = Ours(case(density, shape))
    ours.decode(ours.prompt(16), 12)
    assert ours.computed == pytest.approx(density, rel=0.5, abs=0.02)
    assert models.is_thresholded(ours.case) == (shape is TINY and density == 0.30)


def test_layers_have_equal_numbers_and_memory_of_their_own():
    model = models.with_random_weights(TINY)
    first, second = (layer.mlp.gate_proj.weight for layer in model.model.layers)
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


@needs_kernels
def test_a_run_with_one_engine_that_answers_and_one_that_is_missing(monkeypatch, small, tmp_path):
    wanted = (case(), case(shape=TINY_PLAIN), case(weights="keep", rest="keep"))
    monkeypatch.setattr(generate, "quick", lambda: wanted)
    monkeypatch.setitem(peer.ENGINES, "llama.cpp", FAKE)
    (tmp_path / "engine.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.setitem(peer.ENGINES, "CTranslate2", tmp_path / "engine.py")
    kept = []
    record = generate.run(Request(quick=True, keep=kept.append))
    assert [len(one.data["cases"]) for one in kept] == [1, 2, 3]
    rows = {(row["case"], row.get("part"), row.get("engine")): row for row in page.rows_of(record)}
    one = "tiny/int8/int8/0.05"
    theirs = rows[one, ONE, "llama.cpp Q8_0"]
    assert theirs["ms"] == 16.0 and theirs["tokens_per_s"] == 62.5  # the fake's time is the length of the prompt
    assert theirs["ceiling_tokens_per_s"] == 10.0 * 1e9 / 1000
    assert rows[one, PREFILL, "llama.cpp Q8_0"]["tokens_per_s"] == pytest.approx(20 / 1.5e-3)
    mine, dense = rows[one, ONE, OURS], rows[one, ONE, EVERY]
    assert len(mine["samples_ms"]) == 2 and all(len(turn) == 3 for turn in mine["samples_ms"])
    assert mine["bytes_a_token"] < dense["bytes_a_token"] <= dense["model_bytes"]
    assert "No module named" in rows["tiny plain/int8/int8/0.05", ONE, "CTranslate2 int8"]["note"]
    assert (f"{TINY.name}/keep/keep/0.05", ONE, cases.EAGER) in rows
    shown = page.whole_page(record)
    assert "fake 1; threads" in shown and "does not run: ModuleNotFoundError" in shown and "62.5" in shown
    assert "CTranslate2" not in page.summary(record)


@needs_kernels
def test_cases_are_kept_on_resuming_and_made_anew_when_named(monkeypatch, small):
    first, second = case(), case(0.30)
    monkeypatch.setattr(generate, "quick", lambda: (first, second))
    measured = []
    monkeypatch.setattr(generate, "measure", lambda one, **_: measured.append(one) or [{"case": one.name, "note": "n"}])
    half = generate.run(Request(quick=True, only=("0.05",)))
    assert measured == [first] and list(half.data["cases"]) == [first.name]
    generate.run(Request(quick=True, begun=half))
    assert measured == [first, second]
    again = generate.run(Request(quick=True, begun=half, only=("tiny*0.05",)))
    assert measured == [first, second, first] and list(again.data["cases"]) == [first.name]
    with pytest.raises(ConfigError, match="No case matches 'nothing'"):
        generate.run(Request(quick=True, only=("nothing",)))


@needs_kernels
def test_a_case_that_is_kept_keeps_its_commit(monkeypatch, small):
    first, second = case(), case(0.30)
    monkeypatch.setattr(generate, "quick", lambda: (first, second))
    monkeypatch.setattr(generate, "measure", lambda one, **_: [{"case": one.name, "note": "n"}])
    half = generate.run(Request(quick=True, only=("0.05",)))
    now = half.environment.commit
    before = Record.from_json(half.to_json().replace(now, 40 * "b"))
    whole = generate.run(Request(quick=True, begun=before))
    assert whole.data["commits"] == {first.name: 40 * "b", second.name: now}
    assert page.whole_page(whole).endswith(f"At commit {12 * 'b'}: {first.name}.\n")
    old = Record.from_json(half.to_json().replace('"commits"', '"other"'))  # as records were before
    assert "At commit" not in page.whole_page(old)


@needs_kernels
def test_a_sparse_evaluation_that_is_wrong_is_not_timed(monkeypatch, small):
    monkeypatch.setattr(generate, "quick", lambda: (case(),))
    monkeypatch.setattr(measuring, "same_as_dense", lambda *_: False)
    (row,) = page.rows_of(generate.run(Request(quick=True)))
    assert "nothing is timed" in row["note"] and LazyNeuronError.__name__ in row["note"]


@needs_kernels
def test_fewer_firing_neurons_read_fewer_bytes_by_the_count_of_their_rows():
    few, all_of_them = (Ours(case(density)) for density in (0.05, 1.0))
    for ours in (few, all_of_them):
        ours.decode(ours.prompt(16), 8)
    rows = 2 * TINY.layers * TINY.hidden * TINY.width  # of up and down in int8; scales are some 3 % more
    saved = all_of_them.bytes_a_token(dense=False) - few.bytes_a_token(dense=False)
    assert saved == pytest.approx((all_of_them.computed - few.computed) * rows, rel=0.1)


def test_ratios_are_taken_round_by_round_and_goals_decide():
    samples = {OURS: [[10.0, 10.0], [20.0]], "p": [[20.0], [30.0, 30.0]]}
    found = turns.Turns(samples_ms=samples, gbps=[1.0], own_idle=0)
    assert found.ratios(OURS, "p") == [2.0, 1.5] and found.median_ms(OURS) == 10.0
    tiny = dataclasses.replace(case(), shape=TINYLLAMA)
    slow = turns.Turns(samples_ms={OURS: [[10.0]], EVERY: [[18.0]], "llama.cpp Q8_0": [[17.9]]}, gbps=[1.0], own_idle=0)
    row = measuring._against(tiny, slow, part=ONE, engine=OURS)
    assert (row["goal"], row["goal_over"], row["reached"]) == (1.8, "llama.cpp Q8_0", False)
    fast = dataclasses.replace(slow, samples_ms={**slow.samples_ms, "llama.cpp Q8_0": [[18.0]]})
    assert measuring._against(tiny, fast, part=ONE, engine=OURS)["reached"] is True
    alone = dataclasses.replace(slow, samples_ms={OURS: [[10.0]]})
    assert measuring._against(tiny, alone, part=ONE, engine=OURS)["reached"] is None


@pytest.mark.parametrize(
    ("shape", "weights", "density", "part", "engine", "at_least"),
    [
        (TINYLLAMA, "int8", 0.05, ONE, OURS, 1.8),
        (TINYLLAMA, "int4", 0.30, ONE, OURS, 1.15),
        (LLAMA_1B, "int4", 0.05, ONE, OURS, 1.3),
        (TINYLLAMA, "keep", 1.0, ONE, OURS, 0.95),
        (LLAMA_1B, "int8", 1.0, ONE, EVERY, 0.95),
        (TINYLLAMA, "int8", 0.05, PREFILL, OURS, 1.5),
        (TINYLLAMA, "keep", 0.30, ONE, OURS, None),
        (SMALL, "int8", 0.05, ONE, OURS, None),
    ],
)
def test_goals(shape, weights, density, part, engine, at_least):
    found = cases.goal_for(case(density, shape, weights), part, engine)
    assert (None if found is None else found.at_least) == at_least


def test_every_goal_is_about_a_case_and_names_are_unique():
    every = cases.full()
    assert len({one.name for one in every}) == len(every)
    assert {c.shape for c in cases.quick()} >= {SMALL, SMALL_PLAIN}
    for goal in cases.GOALS:
        assert any(goal.matches(one, goal.part, goal.engine) for one in every), goal
