"""Trainings of the regime: batches, interruptions, what is read from courses, and low-rank fine-tuning."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.catalogue import experiment
from lazyneuron.experiments.experiment import Request
from lazyneuron.experiments.reproduce.peng.regime import course, plan, training
from lazyneuron.experiments.reproduce.peng.regime.case import Case, Job, Kind, Setting, task_of, weights_name
from lazyneuron.experiments.reproduce.peng.regime.earlier import short
from lazyneuron.experiments.reproduce.peng.regime.look import look_at
from lazyneuron.experiments.reproduce.peng.regime.table import comparisons
from lazyneuron.experiments.reproduce.peng.regime.tasks import Augmentation, EndlessDigits, Windows
from lazyneuron.experiments.reproduce.peng.regime.text import Bytes, digest, keep_bytes, read_bytes
from lazyneuron.experiments.training.images import Images
from lazyneuron.experiments.training.lora import add_lora_
from lazyneuron.experiments.training.trainer import Variant
from lazyneuron.experiments.training.vision import VisionSize
from lazyneuron.explain import spectral_concentration
from lazyneuron.induce import DoublyBiased, sparsify_

pytest.importorskip("transformers")
STEPS = 12


def text(seed: int = 0) -> Bytes:
    generator = torch.Generator().manual_seed(seed)
    train, held_out = (torch.randint(97, 123, (n,), generator=generator).to(torch.uint8) for n in (40_000, 4_000))
    return Bytes(
        train=train,
        held_out=held_out,
        facts={"bytes": {"train": 40_000, "held out": 4_000}, "sha256": digest(train, held_out)},
    )


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    made = plan.setting_of(Request(folder=tmp_path, quick=True))
    keep_bytes(text(), made.root / "text")
    return made


def job(setting: Setting, variant: Variant | None = None, *, steps: int = STEPS, **options: object) -> Job:
    case = Case(kind="decoder", variant=variant or plan.VANILLA, steps=steps, **options)  # type: ignore[arg-type]
    return Job(case=case, setting=setting, seed=0)


def test_an_epoch_takes_every_window_once() -> None:
    stream = torch.arange(250, dtype=torch.uint8)
    windows = Windows(stream, length=4, batch=3)
    assert windows.per_epoch == 246 // 12
    epochs = [[windows.at(windows.per_epoch * e + k, seed=0) for k in range(windows.per_epoch)] for e in range(2)]
    for batches in epochs:
        rows = torch.cat(batches)
        assert rows.dtype == torch.int64 and len({int(row[0]) for row in rows}) == len(rows) == 60
        assert torch.equal(rows, rows[:, :1] + torch.arange(4))  # contiguous, and none on top of another
        assert len({int(i) for row in rows for i in row}) == 240
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert torch.equal(Windows(stream, length=4, batch=3).at(7, seed=0), epochs[0][7])
    assert not torch.equal(windows.at(7, seed=1), epochs[0][7])
    with pytest.raises(DataError, match="too few for a batch of 9 x 30"):
        Windows(stream, length=30, batch=9)


def test_the_text_is_kept_and_damage_is_noticed(tmp_path: Path) -> None:
    assert read_bytes(tmp_path) is None
    keep_bytes(text(), tmp_path)
    again = read_bytes(tmp_path)
    assert again is not None and torch.equal(again.train, text().train) and again.facts == text().facts
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="text of bytes"):
        read_bytes(tmp_path)


class Stop(Exception):
    pass


def interrupted(step: int, steps: int = STEPS) -> Callable[[float], None]:
    def advance(share: float) -> None:
        if round(share * steps) == step:
            raise Stop

    return advance


@pytest.mark.parametrize("number", [1, 3], ids=["all three", "with pressure"])
def test_a_training_that_is_interrupted_ends_in_the_same_bits(
    setting: Setting, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = plan.pressed(STEPS)[number].variant
    whole = training.train(job(setting, variant), lambda share: None)
    monkeypatch.setattr(training, "_SAVED_EVERY_S", -1.0)
    other = job(dataclasses.replace(setting, root=setting.root / "other"), variant)
    keep_bytes(text(), other.setting.root / "text")
    for stop in (3, 8):
        with pytest.raises(Stop):
            training.train(other, interrupted(stop))
    assert training.train(other, lambda share: None) == whole
    first, second = (load_file(one.folder / weights_name(STEPS)) for one in (job(setting, variant), other))
    assert all(torch.equal(first[k], second[k]) for k in first) and first.keys() == second.keys()
    assert [look["step"] for look in whole["looks"]] == [4, 10, 12]
    assert training.read_course(other) == whole


def test_a_longer_training_goes_on_and_keeps_its_folder(setting: Setting) -> None:
    short = training.train(job(setting, steps=10), lambda share: None)
    longer = training.train(job(setting, steps=20), lambda share: None)
    assert longer["looks"][: len(short["looks"])] == short["looks"] and longer["looks"][-1]["step"] == 20
    at_once = job(dataclasses.replace(setting, root=setting.root / "other"), steps=20)
    keep_bytes(text(), at_once.setting.root / "text")
    assert training.train(at_once, lambda share: None)["looks"][-1] == longer["looks"][-1]
    assert training.train(job(setting, steps=10), lambda share: None) == longer  # nothing is trained again
    with pytest.raises(CheckpointError, match="other settings"):
        training.train(job(dataclasses.replace(setting, learning_rate=1.0)), lambda share: None)


def test_a_training_that_diverges_is_recorded_and_not_tried_again(setting: Setting) -> None:
    wild = job(dataclasses.replace(setting, learning_rate=1e38))
    found = training.train(wild, lambda share: None)
    assert "is not finite" in found["diverged"] or "is nan" in found["diverged"]
    assert training.train(wild, interrupted(1)) == found
    (row,) = [one.row() for one in comparisons([wild.case], [[found]])]
    assert row["diverged"] == 1 and row["seeds"] == 0 and row["density"] is None


def test_the_factors_multiply_to_the_density(setting: Setting) -> None:
    task = task_of("decoder", setting)
    torch.manual_seed(0)
    model = task.new_model()
    sparsify_(model, DoublyBiased())
    (block,) = look_at(model.eval(), task, step=1, blocks=find_blocks(model))["factors"]
    product = block["input_square"] * block["slope"] * block["gradient"] * block["together"]
    assert block["coefficient"] == pytest.approx(product, rel=1e-9) and block["tokens"] == 32
    assert block["as_up"] / (32 * 32 * product) == pytest.approx(block["derivative_density"], rel=1e-9)
    assert block["slope"] > 1 and block["identity_residual"] < 1e-9


def looks(*rows: tuple[int, float, float, float]) -> list[dict[str, object]]:
    names = ("step", "density", "loss", "train_density")
    return [{**dict(zip(names, row, strict=True)), "accuracy": 0.5} for row in rows]


def test_cuts_by_hand() -> None:
    theirs = looks((100, 0.5, 3.0, 0.6), (200, 0.4, 2.5, 0.5), (400, 0.4, 2.0, 0.4))
    mine = looks((100, 0.4, 2.4, 0.6), (200, 0.2, 2.3, 0.2), (400, 0.1, 1.0, 0.2))
    assert course.shared_step([mine, theirs[:2]]) == 200
    assert course.at(theirs, 400, "loss") == pytest.approx(2.5) and course.at(theirs, 200, "loss") == 2.75
    assert course.in_training(theirs, 400) == pytest.approx((100 * 0.6 + 100 * 0.5 + 200 * 0.4) / 400)
    assert course.cut_at_equal_loss(mine, theirs, 400) == pytest.approx(1 - 0.4 / (1.3 / 3))  # at once as good as 2.5
    assert course.cut_at_equal_loss(theirs, mine, 400) is None
    assert course.looks_until({"looks": mine, "diverged": None}, 200) == mine[:2]
    assert course.looks_until({"looks": mine, "diverged": "at step 3"}, 200) == course.looks_until(None, 9) == []


def test_a_penalty_with_the_modules_stands_beside_the_penalty_alone() -> None:
    cases = plan.pressed(400)
    densities = {"vanilla": 0.4, "all three": 0.3, "pressure to 0.05": 0.05, "all three, pressure to 0.05": 0.04}
    found = [
        [{"looks": looks((200, 0.5, 4.0, 0.4), (400, densities[c.variant.name], 2.0, 0.4)), "diverged": None}]
        if c.variant.name in densities
        else [None]
        for c in cases
    ]
    rows = {one.case.variant.name: (one.first, one.row()["cut"]) for one in comparisons(cases, found)}
    assert rows["vanilla"] == rows["pressure to 0.05"] == (True, 0) and rows["pressure to 0.03"] == (True, None)
    assert rows["all three"] == (False, pytest.approx(1 - 0.8 / 0.9))  # means of looks
    assert rows["all three, pressure to 0.05"] == (False, pytest.approx(0.2))  # the last look alone


def test_a_seed_that_is_behind_waits() -> None:
    case = Case(kind="decoder", variant=plan.VANILLA, steps=400)
    whole = {"looks": looks((200, 0.4, 2.5, 0.5), (400, 0.2, 2.0, 0.4)), "diverged": None}
    begun = {"looks": whole["looks"][:1], "diverged": None}
    (one,) = comparisons([case], [[whole, begun, None]])
    assert (one.step, len(one.pairs)) == (400, 1) and one.row()["density"] == pytest.approx(0.3)
    (none,) = comparisons([case], [[None, None]])
    assert (none.step, none.row()["seeds"], none.curve(one), none.factor_rows()) == (0, 0, None, [])


def test_a_curve_says_what_is_not_as_in_the_first() -> None:
    cases = [case for case in plan.tuned(10) if case.kind in ("decoder", "spans")]
    course = {"looks": looks((2, 0.4, 2.5, 0.5), (5, 0.2, 2.0, 0.4)), "diverged": None}
    both = comparisons(cases, [[course] for _ in cases])
    names = [found["label"] for one in both if (found := one.curve(both[0]))]
    lora = "fine-tuned by LoRA after 10 steps"
    assert names[:4] == ["trained on", "all three", "norm floor and zeroth bias", f"trained on, {lora}"]
    assert names[-2:] == [f"spans of bytes, trained on, {lora}", f"spans of bytes, all three, {lora}"]
    assert len(set(names)) == len(names) == len(cases)


def test_ratios_of_factors_by_hand() -> None:
    names = ["derivative_density", *course.FACTORS.values()]
    one = [{"step": 1, "factors": [dict.fromkeys(names, 4.0), dict.fromkeys(names, 1.0)]}]
    other = [{"step": 1, "factors": [dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0)]}]
    found = course.factor_ratios(one, other, 1)
    assert list(found.values()) == pytest.approx([2.0] * 6) and next(iter(found)) == "density of derivatives"


def test_densities_of_blocks_by_hand() -> None:
    def run(*blocks: list[float]) -> dict[str, object]:
        found = [{"step": step, "density": 0.5, "densities": each} for step, each in enumerate(blocks, 1)]
        return {"looks": found, "diverged": None}

    theirs, mine = run([0.9, 0.9], [0.5, 0.1], [0.3, 0.1], [0.1, 0.4]), run([1, 1], [0.2, 0.2], [0.2, 0.4], [0.2, 0.6])
    assert course.densities_of_blocks(theirs["looks"], 3) == pytest.approx([1.7 / 3, 1.1 / 3])  # type: ignore[arg-type]
    cases = [Case(kind="decoder", variant=variant, steps=4) for variant in (plan.VANILLA, plan.ALL_THREE)]
    _, one = comparisons(cases, [[theirs], [mine]])
    row = one.block_row()
    assert row and (row["block 1"], row["block 2"]) == ("0.300 -> 0.200", "0.200 -> 0.400")  # the last three looks
    assert comparisons(cases, [[theirs], [None]])[1].block_row() is None


def test_tables_of_what_there_is_so_far(setting: Setting, tmp_path: Path) -> None:
    one, request = experiment("peng-regime-language", "reproduce"), Request(folder=tmp_path, quick=True, seeds=2)
    with pytest.raises(DataError, match="without --so-far"):
        one.run(dataclasses.replace(request, so_far=True))
    for case, steps in ((plan.VANILLA, 20), (plan.ALL_THREE, 10)):
        training.train(job(setting, case, steps=steps, begin="tokens"), lambda share: None)
    record = one.run(dataclasses.replace(request, so_far=True))
    vanilla, all_three, *rest = record.data["rows"]
    assert (vanilla["steps"], all_three["steps"], all_three["of"], all_three["seeds"]) == (20, 10, 20, 1)
    assert (
        all(row["density"] == "not yet" and row["steps"] == 0 for row in rest)
        and "Unfinished: 16 of 16" in record.data["finding"]
    )
    found = [training.read_course(job(setting, variant, begin="tokens")) for variant in (plan.VANILLA, plan.ALL_THREE)]
    means = [sum(k["density"] for k in each["looks"] if k["step"] <= 10) / 2 for each in found if each]
    assert all_three["cut"] == pytest.approx(1 - means[1] / means[0]) and all_three["paper"]
    losses = [sum(k["loss"] for k in each["looks"] if k["step"] <= 10) / 2 for each in found if each]
    assert all_three["loss change"] == pytest.approx(losses[1] / losses[0] - 1)  # at the step that both have reached
    page = one.sections["docs/regime.md"](record)
    assert "slope s'^2" in page and "| block 1 |" in page
    assert vanilla["cut at equal loss"] == 0
    json.loads(record.to_json())


def test_digits_are_new_each_time_and_the_same_again(few: Images) -> None:
    size = VisionSize(width=16, layers=1, heads=2, hidden=32, patch=4, batch=8)
    task = EndlessDigits(few, size)
    first, second = task.batch_at(0, 0)["pixel_values"], task.batch_at(1, 0)["pixel_values"]
    assert first.shape == (8, 1, 16, 16) and not torch.equal(first, second)
    assert torch.equal(EndlessDigits(few, size).batch_at(0, 0)["pixel_values"], first)
    assert not torch.equal(task.batch_at(0, 1)["pixel_values"], first)
    still = EndlessDigits(few, size, augmentation=Augmentation(turn=0, stretch=0, shear=0, shift=0, noise=0, erased=0))
    (held_out,) = still.held_out
    assert torch.equal(held_out["labels"], few.test_labels)
    # without any movement the canvas holds the digit itself, 1.3 times smaller than the canvas
    wanted = (few.test - few.train.min()) / (few.train.max() - few.train.min())
    still_there = 1.3 * torch.eye(2, 3).expand(len(wanted), 2, 3)
    grid = torch.nn.functional.affine_grid(still_there, [len(wanted), 1, 16, 16], align_corners=False)
    drawn = (torch.nn.functional.grid_sample(wanted, grid, align_corners=False) - 0.2) / 0.33
    torch.testing.assert_close(held_out["pixel_values"], drawn)
    covered = dataclasses.replace(still.augmentation, erased=1.0)
    erased = EndlessDigits(few, size, augmentation=covered).batch_at(0, 0)["pixel_values"]
    assert bool((erased == 0).any()) and not bool((held_out["pixel_values"] == 0).any())


def test_first_weights_are_those_that_were_asked_for(setting: Setting) -> None:
    for begin, embedded, tied in (
        ("torch", 0.02, True),
        ("unit", 1.0, False),
        ("tokens", 1.0, False),
        ("gpt2", 0.02, True),
    ):
        torch.manual_seed(0)
        model: Any = task_of("decoder", setting, begin=begin).new_model()  # type: ignore[arg-type]
        first, second = model.transformer.h[0].mlp.c_fc.weight, model.transformer.h[0].mlp.c_proj.weight
        reach = 0.25, 32**-0.5  # torch's linear layers: even, up to one over the root of their inputs
        for weight, most in zip((first, second), reach, strict=True):
            assert (float(weight.detach().abs().max()) == pytest.approx(most, rel=0.05)) == (begin != "gpt2")
        assert float(model.transformer.wte.weight.detach().std()) == pytest.approx(embedded, rel=0.1)
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied
        positions = 1.0 if begin == "unit" else 0.02
        assert float(model.transformer.wpe.weight.detach().std()) == pytest.approx(positions, rel=0.1)
        if begin == "gpt2":
            assert float(first.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_a_vision_transformer_begins_as_torchvisions(setting: Setting) -> None:
    """Its stem's deviation is one over the root of its inputs, and its positions nearly 0."""
    for begin, wanted in (("tokens", 16**-0.5), ("torch", 0.02)):
        torch.manual_seed(0)
        model: Any = task_of("vision", setting, begin=begin).new_model()  # type: ignore[arg-type]
        (stem,) = [module.weight.detach() for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert stem[0].numel() == 16
        assert float(stem.std()) == pytest.approx(wanted, rel=0.1)
        assert float(model.vit.embeddings.position_embeddings.detach().std()) < 0.05


@pytest.mark.parametrize("clipped", [False, True])
def test_clipping_comes_with_a_warm_up_and_is_counted(setting: Setting, clipped: bool) -> None:
    """Adam's first step moves every weight that has a gradient by the rate; 2 steps of warm-up halve it."""
    one = dataclasses.replace(setting, clip=1e-3, weight_decay=0.0, first_looks=(1,))
    found = training.train(job(one, steps=1, clipped=clipped), lambda share: None)
    assert found["looks"][0]["clipped"] == float(clipped) and found["looks"][0]["gradient_norm"] > 1e-3
    after = load_file(job(one, clipped=clipped).folder / weights_name(1))["transformer.wpe.weight"]
    torch.manual_seed(0)
    before = task_of("decoder", one).new_model().get_parameter("transformer.wpe.weight").detach()
    moved = (after - before).abs().max()
    assert float(moved) == pytest.approx(1e-3 if clipped else 2e-3, rel=0.02)


def test_lora_trains_adapters_and_vectors_alone(setting: Setting) -> None:
    task = task_of("decoder", setting, begin="unit")  # whose head has a matrix of its own
    torch.manual_seed(0)
    model = task.new_model()
    batch = task.batch_at(0, 0)
    before, names = model(**batch).logits, {n for n, _ in model.named_modules()}
    adapted = add_lora_(model, 4)
    torch.testing.assert_close(model(**batch).logits, before)  # the adapters' product is 0
    assert "lm_head" in adapted and {n.rsplit(".", 1)[-1] for n in adapted} == {"c_attn", "c_proj", "c_fc", "lm_head"}
    assert set(adapted) <= names
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.endswith("bias") or ".ln_" in n for n in trained)
    assert {n for n in trained if n.endswith(("ln_1.weight", "ln_f.weight", "c_fc.base_layer.bias"))}
    assert not [n for n in trained if "wte" in n or "wpe" in n]
    layer = model.get_submodule("transformer.h.0.mlp.c_fc")
    (scale,) = layer.scaling.values()
    assert scale == 1 / 4
    with torch.no_grad():
        for parameter in (layer.lora_A, layer.lora_B):
            nn.init.ones_(next(iter(parameter.values())).weight)
        x = torch.ones(1, 16)
        base = x @ layer.base_layer.weight + layer.base_layer.bias
        torch.testing.assert_close(layer(x), base + 16.0)  # 16 inputs by 4 directions, by a scale of 1 / 4


def test_fine_tuning_goes_on_from_the_vanilla_weights(setting: Setting) -> None:
    tuned = [job(setting, v, tuning="lora", start=STEPS) for v in (Variant(name="trained on"), plan.ALL_THREE)]
    with pytest.raises(DataError, match="train it first"):
        training.train(tuned[0], lambda share: None)
    training.train(job(setting), lambda share: None)
    vanilla = load_file(job(setting).folder / weights_name(STEPS))
    for one in tuned:
        training.train(one, lambda share: None)
        found = load_file(one.folder / weights_name(STEPS))
        base = "transformer.h.0.mlp.c_fc.base_layer.weight"
        assert torch.equal(found[base], vanilla["transformer.h.0.mlp.c_fc.weight"])
        assert not torch.equal(found["transformer.h.0.ln_2.weight"], vanilla["transformer.h.0.ln_2.weight"])


def test_a_look_sees_how_far_a_ramp_is(setting: Setting) -> None:
    ramped = Variant(name="ramped", recipe=DoublyBiased.for_finetuning(10))
    found = training.train(job(setting, ramped, steps=20), lambda share: None)["looks"]
    slopes = {look["step"]: look["factors"][0]["slope"] for look in found}
    assert 1 < slopes[4] < slopes[10]
    whole = training.train(job(setting, Variant(name="at once", recipe=DoublyBiased()), steps=4), lambda share: None)
    assert slopes[20] == pytest.approx(whole["looks"][0]["factors"][0]["slope"], rel=0.2)


def test_fewer_neurons_than_features_leave_no_kernel(setting: Setting) -> None:
    """Item 4 of the theory: with K K^T of full rank a silent feature gradient needs a silent effective gradient."""
    task = task_of("wide", setting)
    torch.manual_seed(0)
    (wide, _), (usual,) = (find_blocks(one.new_model()) for one in (task, task_of("decoder", setting)))
    for block, rank in ((wide, 8), (usual, 16)):
        k = block.first.weight.detach().double()
        values = torch.linalg.eigvalsh(k @ k.t())
        assert int((values > 1e-9).sum()) == rank
        kernel = torch.linalg.eigh(k @ k.t()).eigenvectors[:, 0]
        assert (float((kernel @ k).norm()) > 1e-3) == (block is wide)
    assert spectral_concentration(wide.first.weight.detach()).zero_share == 0
    assert spectral_concentration(usual.first.weight.detach()).zero_share == pytest.approx(1 - 16 / 32)
    real = Setting(root=setting.root)
    assert (real.wide.hidden, real.wide.width, real.wide.layers) == (64, 128, 2 * real.language.layers)


@pytest.mark.parametrize("kind", ["decoder", "spans", "vision"])
def test_jsrelu_can_leave_out_the_first_block(setting: Setting, kind: Kind, few: Images) -> None:
    deeper = dataclasses.replace(
        setting,
        **{name: dataclasses.replace(getattr(setting, name), layers=2) for name in ("language", "spans", "vision")},
    )
    (variant,) = (v for v in plan.LESS_JSRELU if v.name.endswith("first block"))
    model = EndlessDigits(few, deeper.vision).new_model() if kind == "vision" else task_of(kind, deeper).new_model()
    receipt = sparsify_(model, variant.recipe)
    names = [block.name for block in find_blocks(model)]
    floors = [c.block for c in receipt.changes if "a zeroth bias" in c.reason and "floor 1.0" in c.reason]
    assert sorted(floors) == sorted(names)
    assert [block.activation.kind for block in find_blocks(model)] == ["relu"] + ["jsrelu"] * (len(names) - 1)


def test_the_regime_is_the_one_that_was_asked_for() -> None:
    setting, cases = Setting(root=Path()), plan.ablation("decoder", plan.STEPS)
    assert [c.variant.name for c in cases][:2] == ["vanilla", "all three"] and len({c.name for c in cases}) == 9
    assert setting.looks(plan.LONG_STEPS)[:5] == [250, 500, 1000, 2000, 3000]
    assert setting.looks(plan.STEPS) == [s for s in setting.looks(plan.LONG_STEPS) if s <= plan.STEPS]
    everything = [
        *cases,
        *plan.pressed(9),
        *plan.tuned(9),
        *plan.tuned(18),  # from another start
        *plan.other_optimizer(9),
        *plan.wide(9),
        *plan.clipping(9),
    ]
    by_name = {case.name: {json.dumps(c.data()) for c in everything if c.name == case.name} for case in everything}
    assert all(len(data) == 1 for data in by_name.values())  # no two trainings share a folder
    tuned = plan.tuned(plan.STEPS)[1]
    assert (tuned.steps, tuned.start) == (10_000, 20_000) and math.isclose(plan.RAMP * tuned.steps, 3000)
    shorter = Request(steps=8)
    assert plan.steps_of(shorter, plan.STEPS) == 8 and plan.steps_of(dataclasses.replace(shorter, quick=True), 9) == 20


def held(folder: Path, record: Record | None = None, **options: Any) -> Record:
    request = Request(folder=folder, quick=True, seeds=1, so_far=True, begun=record, **options)
    return experiment("peng-regime-language", "reproduce").run(request)


def at_commit(record: Record, letter: str) -> Record:
    at = record.environment
    return Record.from_json(record.to_json().replace(at.commit, 40 * letter).replace(short(at), 12 * letter))


def test_rows_stay_when_the_folder_of_their_trainings_is_lost(tmp_path: Path) -> None:
    def trained(name: str, stream: Bytes, variants: Sequence[Variant], steps: int = 10) -> Path:
        made = plan.setting_of(Request(folder=tmp_path / name, quick=True))
        keep_bytes(stream, made.root / "text")
        for variant in variants:
            training.train(job(made, variant, steps=steps, begin="tokens"), lambda share: None)
        return tmp_path / name

    lost = trained("lost", text(), (plan.VANILLA, plan.ALL_THREE))
    before = at_commit(held(lost), "a")
    here = trained("here", text(1), (plan.VANILLA, plan.SINGLE[0]))
    both = held(here, before)
    rows = [(row["variant"], row["commit"], row["cut"]) for row in both.data["rows"] if row["steps"]]
    now = short(both.environment)
    assert [row[0] for row in rows] == ["vanilla", "JSReLU", "vanilla", "all three"]
    assert [row[1] for row in rows] == [now, now, "a" * 12, "a" * 12]
    old = {row["variant"]: row for row in before.data["rows"] if row["steps"]}
    # a row is compared within its own record, never with the vanilla of another text
    wanted = 1 - old["all three"]["density"] / old["vanilla"]["density"]
    assert rows[-1][2] == old["all three"]["cut"] == pytest.approx(wanted)
    alone = {row["variant"]: row for row in held(here).data["rows"] if row["steps"]}
    assert rows[1][2] == alone["JSReLU"]["cut"]
    every = [row["variant"] for row in both.data["rows"]]
    # vanilla of both, by Adafactor and from small first weights; all three that has not begun here makes room
    assert every.count("vanilla") == 4 and every.count("all three") == 3
    runs = both.data["settings"]["runs"]
    assert [(row["variant"], row["commit"]) for row in runs["blocks"]] == [("JSReLU", now), ("all three", "a" * 12)]
    assert {row["commit"] for row in runs["factors"]} == {now, "a" * 12}
    labels = [curve["label"] for curve in both.data["curves"]]
    assert labels == ["vanilla", "JSReLU", "vanilla @ aaaaaaa", "all three @ aaaaaaa"]
    drawn = before.data["curves"][1]["y"]
    assert both.data["curves"][3]["y"] == pytest.approx(drawn, rel=1e-3)  # courses in records have four digits
    (part,) = runs["earlier"].values()
    assert part["looks"] == {name: before.data["settings"]["runs"]["looks"][name] for name in part["looks"]}
    assert "a text of 40,000 bytes" in part["measured"]
    assert both.data["settings"]["earlier rows"] == {"a" * 12: part["measured"]}
    page = experiment("peng-regime-language", "reproduce").sections["docs/regime.md"](both)
    assert f"Rows of {'a' * 12}: torch" in page and "all three, 2 seeds" not in both.data["finding"]

    # once more, from the record that has both: nothing comes twice, and what goes on replaces what it was
    trained("here", text(1), (plan.VANILLA, plan.SINGLE[0]), steps=20)
    again = held(here, at_commit(both, "b"))
    kept = [(row["variant"], row["steps"]) for row in again.data["rows"] if row["steps"]]
    assert kept == [("vanilla", 20), ("JSReLU", 20), ("vanilla", 10), ("all three", 10)]
    assert (
        again.data["curves"][2:] == both.data["curves"][2:]
        and again.data["settings"]["runs"]["earlier"] == runs["earlier"]
    )
    assert "commit" not in held(lost, before).data["rows"][0]  # all of it is there
    moved = [(r["variant"], r["commit"]) for r in held(lost, at_commit(again, "c")).data["rows"] if r["steps"]]
    assert moved == [("vanilla", now), ("all three", now), ("vanilla", "c" * 12), ("JSReLU", "c" * 12)]


def test_records_whose_rows_cannot_be_told_apart_are_refused(setting: Setting, tmp_path: Path) -> None:
    training.train(job(setting, begin="tokens"), lambda share: None)
    record = held(tmp_path)
    other = json.loads(record.to_json())
    (courses,) = (c for c in other["data"]["settings"]["runs"]["looks"].values() if c[0])
    courses[0][0]["density"] = 0.123
    changed = Record.from_json(json.dumps(other))
    with pytest.raises(ConfigError, match="commit first"):
        held(tmp_path, changed)
    assert len([r for r in held(tmp_path, at_commit(changed, "a")).data["rows"] if r["steps"]]) == 2
    other["data"]["rows"].pop()
    with pytest.raises(ConfigError, match="no courses that its rows belong to"):
        held(tmp_path, Record.from_json(json.dumps(other)))
