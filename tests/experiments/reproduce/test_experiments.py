"""Experiments at a size that only shows that they measure what they say."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.catalogue import NAMES, experiment, experiments
from lazyneuron.experiments.experiment import Request, published
from lazyneuron.experiments.reproduce.peng import identity as peng_identity
from lazyneuron.experiments.reproduce.peng import marchenko_pastur as peng_mp
from lazyneuron.experiments.reproduce.peng import shifted as peng_shifted
from lazyneuron.experiments.reproduce.peng import vision as peng_vision
from lazyneuron.experiments.training import vision
from lazyneuron.experiments.training.ablation import Ablation, Job
from lazyneuron.experiments.training.images import Images
from lazyneuron.experiments.training.task import Batch
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant, train
from lazyneuron.experiments.training.vision import VisionTask
from lazyneuron.induce import ShiftedActivation
from lazyneuron.report import curves_figure

pytest.importorskip("transformers")
CONFIG = TrainingConfig(steps=8, learning_rate=5e-3, evaluations=2)


def test_an_ablation_compares_every_variant_with_the_first(small: VisionTask, tmp_path: Path) -> None:
    seen: list[float] = []
    ablation = Ablation(
        build=lambda: small,
        variants=(peng_vision.VARIANTS[0], peng_vision.VARIANTS[4]),
        config=CONFIG,
        published={"all three": "0.36"},
        processes=1,
    )
    one = published(name="peng-vision", title="", source="", differs="smaller.", run=ablation.run)
    record = one.run(Request(seeds=2, advance=lambda share, note: seen.append(share)))
    assert seen[-1] == pytest.approx(1.0) and seen == sorted(seen)
    rows = {row["variant"]: row for row in record.data["rows"]}
    assert list(rows) == ["vanilla", "all three"]
    runs = record.data["settings"]["runs"]
    last = {name: [points[-1]["density"] for points in found] for name, found in runs.items()}
    both = [1 - a / b for a, b in zip(last["all three"], last["vanilla"], strict=True)]
    assert rows["all three"]["relative cut"] == pytest.approx(sum(both) / 2)
    assert rows["all three"]["paper"] == "0.36"
    assert rows["vanilla"]["relative cut"] == 0 and rows["vanilla"]["paper"] is None
    curve = next(c for c in record.data["curves"] if c["label"] == "vanilla")
    assert curve["y"][-1] == pytest.approx(sum(last["vanilla"]) / 2)
    assert curve["x"] == [1.0, 2.0]  # epochs: four steps see 256 images
    assert f"by {rows['all three']['relative cut']:.2f}" in record.data["finding"]
    again = Record.from_json(record.to_json())
    curves_figure(again, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(DataError, match="one of kind 'reproduce' is needed"):
        curves_figure(Record(kind="demo", data={}, seed=None), tmp_path / "b.png")


def test_fine_tuning_goes_on_from_one_dense_model_for_all_variants(small: VisionTask) -> None:
    still = dataclasses.replace(CONFIG, learning_rate=1e-12)
    variants = (Variant(name="dense"), Variant(name="again"))
    ablation = Ablation(build=lambda: small, variants=variants, config=still, dense=CONFIG, processes=1)
    found = ablation.run(Request(seeds=1))
    _, dense = train(small, CONFIG, variant=variants[0], seed=0)
    for row in found.rows:
        assert row["density"] == pytest.approx(dense[-1].density, rel=1e-3) and row["accuracy"] == dense[-1].accuracy


def test_every_batch_is_brought_to_the_models_device(small: VisionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[int] = []
    here, losses = VisionTask.here, VisionTask.losses

    def spy_here(self: VisionTask, batch: Batch) -> Batch:
        moved = here(self, batch)
        brought.append(id(moved))
        kept.append(moved)  # so that no id is used twice
        return moved

    def spy_losses(self: VisionTask, model: nn.Module, batch: Batch, **options: float) -> tuple[Tensor, Tensor]:
        assert id(batch) in brought
        return losses(self, model, batch, **options)

    kept: list[Batch] = []
    monkeypatch.setattr(VisionTask, "here", spy_here)
    monkeypatch.setattr(VisionTask, "losses", spy_losses)
    train(small, CONFIG, variant=Variant(name="vanilla"), seed=0)
    assert len(kept) >= CONFIG.steps
    small.device = torch.device("meta")
    assert {tensor.device.type for tensor in here(small, kept[0]).values()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_ablation_trains_on_a_gpu(small: VisionTask) -> None:
    variants = (peng_vision.VARIANTS[4], peng_vision.VARIANTS[6])
    ablation = Ablation(build=lambda: small, variants=variants, config=CONFIG)
    found = ablation.run(Request(seeds=1, device="cuda"))
    assert found.facts["device"] == "cuda"
    assert all(0 < row["density"] < 1 for row in found.rows)


def test_the_larger_size_is_for_accelerators(few: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Request(device="cuda").large
    assert not Request(device="cuda", quick=True).large and not Request().large
    monkeypatch.setattr(vision, "load_images", lambda folder: few)
    task = vision.vision_task(None, batch=32, large=True)
    assert (task.size.width, task.size.layers, task.size.patch) == (384, 12, 2)
    config = TrainingConfig(steps=800, learning_rate=3e-3, warmup=40).for_large()
    assert (config.steps, config.warmup, config.learning_rate) == (8000, 400, pytest.approx(1e-3))


def test_the_shifted_record(small: VisionTask) -> None:
    case = peng_shifted.Case(corner=(1.6, -1.6))
    points = peng_shifted.train_shifted(
        peng_shifted.ShiftedJob(build=lambda: small, config=CONFIG, case=case, seed=0), lambda share: None
    )
    assert [p["step"] for p in points] == [0, 4, 8]
    # at the start pre-activations are near 0, just outside of the flat interval from 0.1 to 3.1
    assert 0 < points[0]["flat"] < 0.6
    assert all(p["near_dy"] >= p["flat"] - 1e-6 for p in points)
    activation = ShiftedActivation("squared_relu", dx=1.6, dy=-1.6)
    assert float(activation(torch.tensor(1.0))) == pytest.approx(-1.6)


def test_shifted_jsrelu_and_a_zeroth_bias_are_trained_too(small: VisionTask) -> None:
    """The slope of a shifted JSReLU is at least 1 where it is not 0, and an unclipped zeroth bias is trained."""
    case = peng_shifted.Case(corner=(1.6, -1.6), base="jsrelu", zeroth_bias=True)
    job = peng_shifted.ShiftedJob(build=lambda: small, config=CONFIG, case=case, seed=0)
    plain = dataclasses.replace(job, case=dataclasses.replace(case, zeroth_bias=False))
    points, without = (peng_shifted.train_shifted(one, lambda share: None) for one in (job, plain))
    for point in (*points, *without):
        assert point["derivative_square"] >= 1 - point["flat"] - 1e-6
        assert point["near_dy"] == pytest.approx(point["flat"], abs=0.01)  # the jump leaves no outputs near dy
    assert points[-1]["flat"] != without[-1]["flat"]
    assert peng_shifted.ZEROTH_BIAS.bound is None and len(set(peng_shifted.CASES)) == 16


def test_the_identity_record(small: VisionTask) -> None:
    job = Job(build=lambda: small, config=CONFIG, variant=peng_identity.VARIANTS[1], seed=0)
    points = peng_identity.train_explained(job, lambda share: None)
    assert [p["step"] for p in points] == [4, 8]
    for point in points:
        assert point["identity_density"] == pytest.approx(point["derivative_density"], rel=1e-6)
        assert point["as_up"] > 0 and point["singular_ratio"] > 1


def test_the_gram_matrices_of_a_training() -> None:
    run = peng_mp.Run(width=16, weight_decay=0.1, seed=0, epochs=1)
    found = peng_mp.train_net(run, lambda share: None)
    assert found["steps"] == math.ceil(1438 / 32)
    # samples are normed over 16 features, so they cannot fill the direction of the mean
    assert 1 / 16 < found["gradients"] < found["samples"] <= 15 / 16
    assert found["samples anisotropy"] == pytest.approx(math.sqrt(1 - found["samples"]), rel=0.05)
    assert found["independent"] == pytest.approx(1 / (1 + 16 / (45 * 32)))


def test_the_gram_experiment_has_the_published_widths_and_decays() -> None:
    """Section 3.5 of the authors' set-up; at decay 0.3 the tail falls to 1e-3 after 50 000 steps, so none is cut."""
    assert peng_mp.WIDTHS == (16, 64, 128, 224, 336, 400, 512, 624, 720, 800, 912, 1024)
    assert peng_mp.DECAYS == (0.0, 0.01, 0.1, 0.3)
    found = peng_mp.train_net(peng_mp.Run(width=16, weight_decay=0.3, seed=0, epochs=1), lambda share: None)
    assert found["steps"] == 45


def test_the_net_of_the_gram_experiment_is_residual() -> None:
    net = peng_mp.Net(8)
    logits, inputs, outputs = net(torch.randn(3, 64))
    assert logits.shape == (3, 10) and len(inputs) == len(outputs) == 4
    assert all(bool((a >= 0).all()) and a.shape == (3, 8) for a in outputs)
    torch.testing.assert_close(inputs[0].mean(-1), torch.zeros(3), atol=1e-6, rtol=0)


def test_the_catalogue() -> None:
    papers = experiments("reproduce")
    assert {name for name in papers if name.startswith("peng-")} == {
        "peng-vision",
        "peng-language",
        "peng-t5",
        "peng-finetune-vision",
        "peng-finetune-language",
        "peng-shifted",
        "peng-identity",
        "peng-marchenko-pastur",
        *(
            f"peng-regime-{part}"
            for part in ("language", "t5", "vision", "wide", "finetune", "clipping", "pressure", "long")
        ),
    }
    assert "minilm-frontier" in papers
    assert all(one.differs and one.source for one in papers.values())
    for kind, names in NAMES.items():
        assert tuple(one.name for one in experiments(kind).values()) == names
        assert {one.kind for one in experiments(kind).values()} == {kind}
    with pytest.raises(ConfigError, match="There is no experiment 'fig-9'"):
        experiment("fig-9", "reproduce")
    with pytest.raises(ConfigError, match="There is no benchmark 'peng-vision'; there are accelerate, checks"):
        experiment("peng-vision", "benchmark")
    with pytest.raises(ConfigError, match="At least one seed"):
        Request(seeds=0)
