"""Training for an experiment."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from lazyneuron.core.errors import DivergedError
from lazyneuron.experiments.training.images import Images
from lazyneuron.experiments.training.trainer import Evaluation, TrainingConfig, Variant, train
from lazyneuron.experiments.training.vision import VisionTask
from lazyneuron.induce import DoublyBiased, JSReLU, Pressure, TargetDensity, ZerothBias
from tests.experiments.reproduce.conftest import SMALL

SHORT = TrainingConfig(steps=8, learning_rate=5e-3, evaluations=2)
LONGER = dataclasses.replace(SHORT, steps=120)
VANILLA = Variant(name="vanilla")


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = TrainingConfig(steps=14, learning_rate=2.0, warmup=4)
    assert [config.rate(k) for k in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert config.rate(4) == 2.0 and config.rate(9) == pytest.approx(1.0)
    assert config.rate(13) == pytest.approx(1 + math.cos(math.pi * 0.9))
    root = TrainingConfig(steps=100, learning_rate=2.0, warmup=3, decay="root")
    assert root.rate(2) == 2.0 and root.rate(15) == pytest.approx(2 * math.sqrt(4 / 16))
    assert {TrainingConfig(steps=100, learning_rate=2.0, decay="none").rate(k) for k in range(100)} == {2.0}
    assert TrainingConfig(steps=10, learning_rate=1.0, evaluations=4).evaluation_steps == [2, 5, 8, 10]


def test_training_is_a_function_of_the_seed_and_learns(small: VisionTask) -> None:
    config = dataclasses.replace(SHORT, steps=240, evaluations=3)
    model, points = train(small, config, variant=VANILLA, seed=1)
    _, again = train(small, config, variant=VANILLA, seed=1)
    assert points == again
    assert [p.step for p in points] == [80, 160, 240]
    assert points[-1].accuracy > 0.3  # chance is 0.1
    images = small.images
    with torch.no_grad():
        logits = model(pixel_values=images.test).logits
    assert points[-1].accuracy == pytest.approx(float((logits.argmax(-1) == images.test_labels).float().mean()))
    loss = torch.nn.functional.cross_entropy(logits, images.test_labels)
    assert points[-1].loss == pytest.approx(float(loss), rel=1e-5)
    assert len(points[-1].blocks) == 2 and points[-1].density == pytest.approx(sum(points[-1].blocks) / 2)


def test_the_recipe_is_in_the_model_and_its_conditions_hold(small: VisionTask) -> None:
    model, _ = train(small, SHORT, variant=Variant(name="all", recipe=DoublyBiased()), seed=0)
    assert sum(isinstance(m, JSReLU) for m in model.modules()) == 2
    biases = [m for m in model.modules() if isinstance(m, ZerothBias)]
    assert len(biases) == 2 and all(bool((b.bias != 0).any()) for b in biases)
    norms = [m for name, m in model.named_modules() if name.endswith("layernorm_after")]
    assert len(norms) == 2 and all(bool((n.weight >= 1).all()) and bool((n.bias == 0).all()) for n in norms)


@pytest.fixture(scope="module")
def trained(few: Images) -> tuple[nn.Module, tuple[Evaluation, ...]]:
    """A vanilla model after 120 steps, and its points; copy it before training on."""
    pytest.importorskip("transformers")
    model, points = train(VisionTask(few, SMALL), LONGER, variant=VANILLA, seed=0)
    return model, tuple(points)


def test_pressure_brings_the_density_down(small: VisionTask, trained: tuple[nn.Module, tuple[Evaluation, ...]]) -> None:
    pressed = Variant(name="pressed", pressure=Pressure(target=TargetDensity(density=0.05, gain=0.1)))
    _, points = train(small, LONGER, variant=pressed, seed=0)
    assert points[-1].density < 0.6 * trained[1][-1].density


def test_it_goes_on_from_a_trained_model(small: VisionTask, trained: tuple[nn.Module, tuple[Evaluation, ...]]) -> None:
    model, before = copy.deepcopy(trained[0]), trained[1]
    still = dataclasses.replace(SHORT, learning_rate=1e-12, evaluations=1)
    same, after = train(small, still, variant=VANILLA, seed=0, start=model)
    assert same is model and after[-1].accuracy == before[-1].accuracy


def test_a_loss_that_is_not_finite_stops_the_training(small: VisionTask) -> None:
    small.images = dataclasses.replace(small.images, train=small.images.train * float("inf"))
    with pytest.raises(DivergedError, match=r"The loss of step 1 is nan: what enters the block .*layers.0"):
        train(small, SHORT, variant=VANILLA, seed=0)
