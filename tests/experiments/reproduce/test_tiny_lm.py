"""tiny-lm at a size of seconds: training goes on after a kill, and what is measured is what it is called."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lazyneuron.accelerate.quantised.execution import every_neuron
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import Request, published
from lazyneuron.experiments.reproduce.tiny_lm import evaluation, experiment, training
from lazyneuron.experiments.reproduce.tiny_lm.decoding import Path as Decoded
from lazyneuron.experiments.reproduce.tiny_lm.decoding import agreement, completions, decode
from lazyneuron.experiments.reproduce.tiny_lm.experiment import Plan, jobs_of
from lazyneuron.experiments.reproduce.tiny_lm.head import certified_decoding
from lazyneuron.experiments.reproduce.tiny_lm.model import Size, new_model
from lazyneuron.experiments.reproduce.tiny_lm.page import section
from lazyneuron.experiments.reproduce.tiny_lm.quality import (
    FORMATS,
    Format,
    dense_model,
    sparse_model,
)
from lazyneuron.experiments.reproduce.tiny_lm.sources import Document, Sources
from lazyneuron.experiments.reproduce.tiny_lm.text import keep_text, make_text, tokenizer_of
from lazyneuron.experiments.reproduce.tiny_lm.training import Job, Schedule, train, train_and_save
from lazyneuron.generate.perplexity import losses, perplexity
from lazyneuron.induce import Pressure, TargetDensity
from tests.kernels import needs_kernels

pytest.importorskip("transformers")
SIZE = Size(vocabulary=300, width=32, layers=2, heads=2, hidden=128, context=32)
PLAN = Plan(
    size=SIZE,
    schedule=Schedule(steps=12, batch=4, warmup=2, every=4),
    windows=4,
    prompts=1,
    tokens=4,
    thresholds=(0.3,),
    rounds=1,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-lm") / "text"
    documents = [
        Document(name=f"{k}.py", package="p", text=f"def f{k}(x):\n    return x + {k}\n" * 30) for k in range(40)
    ]
    sources = Sources(
        train=tuple(documents[:30]), files=tuple(documents[30:36]), packages=tuple(documents[36:]), left_out=0
    )
    keep_text(make_text(sources, vocabulary=SIZE.vocabulary), folder)
    return folder


def job(text: Path, folder: Path, **changes: Any) -> Job:
    (first, _) = jobs_of(PLAN, text, folder, seeds=1)
    return dataclasses.replace(first, **changes)


class Killed(Exception):
    """Stands for a kill at some step."""


def test_packed_activations_change_no_loss(text: Path, tmp_path: Path) -> None:
    _, plain = train(job(text, tmp_path / "plain"), lambda share: None)
    model, packed = train(job(text, tmp_path / "packed", pack=True), lambda share: None)
    assert [row["loss"] for row in packed] == pytest.approx([row["loss"] for row in plain], rel=2e-3)
    assert not any("forward" in module.__dict__ for module in model.modules())
    extra = [one for one in jobs_of(PLAN, text, tmp_path, seeds=1, pack=True) if one.pack]
    assert [one.name for one in extra] == [experiment.PACKED]


def test_a_killed_training_goes_on_bit_for_bit(text: Path, tmp_path: Path) -> None:
    whole, rows = train(job(text, tmp_path / "whole"), lambda share: None)

    def kill(share: float) -> None:
        if share > 0.8:  # after step 10: the checkpoint of step 8 is the last
            raise Killed

    with pytest.raises(Killed):
        train(job(text, tmp_path / "killed"), kill)
    seen: list[float] = []
    again, found = train(job(text, tmp_path / "killed"), seen.append)
    assert seen[0] == pytest.approx(9 / 12) and len(found) == len(rows) == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert [(r["loss"], r["density"], r["strength"]) for r in rows] == [
        (r["loss"], r["density"], r["strength"]) for r in found
    ]
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train(job(text, tmp_path / "killed", size=dataclasses.replace(SIZE, hidden=64)), lambda share: None)


def test_pressure_makes_the_model_sparse_and_it_learns(text: Path, tmp_path: Path) -> None:
    longer = Schedule(steps=80, batch=4, warmup=4, every=100)
    hard = Pressure(target=TargetDensity(density=0.1, reach=0.5, strength=0.5, gain=0.1))
    _, pushed = train(job(text, tmp_path / "a", schedule=longer, pressure=hard), lambda share: None)
    _, free = train(job(text, tmp_path / "b", schedule=longer, pressure=None), lambda share: None)
    seen = [row["density"] for row in free if not math.isnan(row["density"])]
    assert len(seen) == 4  # every 20 steps
    assert 0.05 < pushed[-1]["density"] < 0.16 < 0.6 * seen[-1]
    for rows in (pushed, free):
        assert rows[0]["loss"] == pytest.approx(math.log(300), rel=0.1) and rows[-1]["loss"] < 0.6 * rows[0]["loss"]
        assert min(row["processor_s"] for row in rows) > 0


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(steps=100, warmup=10)
    assert [schedule.rate(k) for k in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.525])
    assert schedule.rate(99) == pytest.approx(0.05, abs=1e-3)


def test_every_parameter_is_moved_by_one_optimiser() -> None:
    model = new_model(SIZE, "relu")
    found = training.optimizers(model, Schedule())
    moved = [id(p) for o in found.values() for group in o.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in model.parameters())
    inner = {id(p) for group in found["muon"].param_groups for p in group["params"]}
    assert len(inner) == 7 * SIZE.layers and id(model.model.embed_tokens.weight) not in inner


@pytest.fixture(scope="module")
def sharp() -> Any:
    """Random weights large enough that tokens differ by more than rounding."""
    torch.manual_seed(0)
    model = new_model(SIZE, "relu").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.15)
    return model


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.randint(300, (10, 32), generator=torch.Generator().manual_seed(1))


def test_losses_are_the_librarys(sharp: Any, rows: Tensor) -> None:
    found = losses(sharp, rows)
    assert found.shape == (10, 31)
    with torch.no_grad():
        wanted = float(sharp(input_ids=rows, labels=rows).loss)
    assert float(found.mean()) == pytest.approx(wanted, rel=1e-5)
    assert perplexity(found) == pytest.approx(math.exp(wanted), rel=1e-4)


def test_decoding_is_what_generate_does(sharp: Any, rows: Tensor) -> None:
    path = decode(sharp, rows[:2, :8], 6)
    for prompt, chosen in zip(rows[:2, :8], path.chosen, strict=True):
        mask = torch.ones(1, 8, dtype=torch.long)
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "eos_token_id": 299}
        wanted = sharp.generate(prompt[None], attention_mask=mask, **options)[0, 8:]
        assert chosen.tolist() == wanted.tolist()
    along = path.chosen.roll(1, 0)
    forced = decode(sharp, rows[:2, :8], 6, along=along)
    with torch.no_grad():
        logits = sharp(input_ids=torch.cat([rows[:2, :8], along], 1)).logits[:, 7:-1]
    assert torch.equal(forced.chosen, logits.argmax(-1))
    best = logits.topk(2).values
    torch.testing.assert_close(forced.gap, best[..., 0] - best[..., 1], rtol=1e-3, atol=1e-4)


def test_agreement_counts_ties_by_the_first_models_gap() -> None:
    first = Decoded(chosen=torch.tensor([[1, 2, 3, 4]]), gap=torch.tensor([[0.5, 0.0001, 0.5, 0.0001]]))
    second = Decoded(chosen=torch.tensor([[1, 2, 9, 9]]), gap=torch.ones(1, 4))
    found = agreement(first, second, rounding=1e-3)
    assert dataclasses.asdict(found) == {"tokens": 4, "same": 2, "ties": 1} and found.share == 0.5
    with pytest.raises(ConfigError, match="cannot be compared"):
        agreement(first, Decoded(chosen=torch.ones(1, 3), gap=torch.ones(1, 3)), rounding=1.0)


@needs_kernels
@pytest.mark.parametrize("form", [FORMATS[0], FORMATS[2], FORMATS[3]], ids=lambda form: form.name)
def test_dense_and_sparse_are_the_same_model(sharp: Any, rows: Tensor, form: Format) -> None:
    before = {name: value.clone() for name, value in sharp.state_dict().items()}
    dense, sparse = dense_model(sharp, form), sparse_model(sharp, form)
    one, other = (losses(model, rows) for model in (dense, sparse))
    with every_neuron(sparse):
        third = losses(sparse, rows)
    torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(one, third, rtol=2e-3, atol=2e-3)
    if form.bits != "keep":
        assert torch.equal(other, third)  # the kernels promise the same bits
        assert float((one - losses(sharp, rows)).abs().max()) > 10 * float((one - other).abs().max())
    assert all(torch.equal(value, before[name]) for name, value in sharp.state_dict().items())


@needs_kernels
def test_a_certified_head_decodes_the_same_tokens_from_fewer_entries(sharp: Any, rows: Tensor) -> None:
    found = certified_decoding(sharp, rows[:2, :8], 6)
    greedy, sampled = found.values()
    assert greedy["same"] == greedy["tokens"] == sampled["same"] == sampled["tokens"] == 12
    assert greedy["certified"] == 12 and greedy["all"] == {}
    assert 1 <= greedy["candidates"] < greedy["entries"] / 8
    assert sampled["certified"] + sum(sampled["all"].values()) == 12
    assert "forward" not in sharp.lm_head.__dict__  # a copy was certified


@needs_kernels
def test_a_silu_model_has_no_sparse_form() -> None:
    silu = new_model(SIZE, "silu").eval()
    assert all(sparse_model(silu, form) is None for form in (FORMATS[0], FORMATS[2]))


def test_completions_begin_with_their_prompts(sharp: Any, text: Path) -> None:
    kept = training.read_text(text)
    assert kept is not None
    found = completions(sharp, tokenizer_of(kept), ["def f1(x", "    return"], tokens=5)
    assert found[0].startswith("def f1(x") and found[1].startswith("    return")
    assert found == completions(sharp, tokenizer_of(kept), ["def f1(x", "    return"], tokens=5)


@needs_kernels
def test_a_trained_model_is_kept_and_measured_once(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relu = job(text, tmp_path / "relu")
    history = train_and_save(relu, lambda share: None)
    assert len(history) == 12
    names = {path.name for path in (relu.folder / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    assert train_and_save(relu, lambda share: None)[-1]["loss"] == history[-1]["loss"]
    asked = evaluation.EvaluationJob(
        model=relu.folder / "model",
        text=text,
        folder=tmp_path / "found",
        width=32,
        length=32,
        windows=4,
        prompts=1,
        tokens=4,
    )
    seen: list[float] = []
    found = evaluation.evaluate(asked, seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0
    model = evaluation.load_trained(relu.folder / "model")
    parts = {*(form.name for form in FORMATS[:4]), "head", "completions"}  # groups of 64 do not divide 32
    assert set(found) == parts
    for one in found["head"].values():
        assert one["same"] == one["tokens"] == one["certified"] + sum(one["all"].values()) == 4
    files = torch.stack([torch.as_tensor(w) for w in evaluation.windows(training.read_text(text).files, 32, 4)])  # type: ignore[union-attr]
    assert found["fp32"]["perplexity"] == pytest.approx(perplexity(losses(model, files)), rel=1e-6)
    assert found["int8"]["sparse_as_dense"]["tokens"] == 4
    weights = load_file(relu.folder / "model" / "model.safetensors")
    assert torch.equal(weights["model.norm.weight"], model.model.norm.weight)
    kept = json.loads((tmp_path / "found" / "int8.json").read_text())
    (tmp_path / "found" / "int8.json").write_text(json.dumps(kept | {"perplexity": 1.25}))
    assert evaluation.evaluate(asked, lambda share: None)["int8"]["perplexity"] == 1.25
    with pytest.raises(CheckpointError, match="no trained model"):
        evaluation.load_trained(tmp_path / "nowhere")


@needs_kernels
@pytest.mark.slow
def test_the_record_of_a_small_run(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def here(work: Any, jobs: Any, *, advance: Any) -> Iterator[Any]:
        return [work(one, lambda share: None) for one in jobs]  # type: ignore[return-value]

    monkeypatch.setattr(experiment, "run_jobs", here)
    monkeypatch.setattr(experiment, "make_text", lambda *_, **__: training.read_text(text))
    monkeypatch.setattr(experiment, "read_sources", lambda **_: None)
    monkeypatch.setattr(
        experiment, "jobs_of", lambda plan, _, folder, **options: jobs_of(plan, text, folder, **options)
    )
    one = published(name="tiny-lm", title="", source="", differs="", run=lambda request: experiment.run(request, PLAN))
    request = Request(folder=tmp_path, seeds=1, with_plain=True, advance=lambda share, note: seen.append(share))
    record = Record.from_json(one.run(request).to_json())
    assert seen == sorted(seen) and seen[-1] == 1.0
    rows = record.data["rows"]
    assert [row["model"] for row in rows] == ["ReLU, pressure"] * 4 + ["SiLU"] * 4 + ["SiLU, cut to 0.3"] + [
        "ReLU, loss alone"
    ] * 4
    assert rows[8]["density"] == pytest.approx(0.3, abs=0.1) and rows[4]["density"] == 1.0
    assert all("run sparsely" not in row for row in rows[4:9]) and all(
        float(row["run sparsely"]) > 1 for row in rows[:4]
    )
    assert rows[0]["tokens/s dense"] > 0 and rows[0]["tokens/s sparse"] > 0
    page = section(record)
    assert "```py" in page and rows[0]["perplexity"] in page and "### The certified head" in page
