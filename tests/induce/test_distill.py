"""Distillation: it lowers the error, reaches a density, and leaves no trace when it fails."""

import copy
import time

import pytest
import torch
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce import (
    Distillation,
    Pressure,
    Relufy,
    Step,
    TargetDensity,
    block_samples,
    distill,
    distill_layerwise,
    pre_activations,
    sparsify_,
    token_error,
)
from lazyneuron.induce.training.loop import timed_batches
from tests.induce.networks import Masked, gelu_mlp, inputs


def pair(**options):
    teacher = gelu_mlp(**options)
    student = copy.deepcopy(teacher)
    sparsify_(student, Relufy())
    return teacher, student, find_blocks(student)


def error(student, teacher, x) -> float:
    with torch.no_grad():
        return ((student(x) - teacher(x)).square().mean() / teacher(x).var()).item()


def density(blocks, student, x) -> float:
    with torch.no_grad(), pre_activations(blocks) as caught:
        student(x)
    return sum((z > 0).float().mean().item() for z in caught.values()) / len(caught)


def test_lowers_the_error_on_inputs_it_has_not_seen():
    teacher, student, blocks = pair()
    unseen = inputs(seed=9)
    before = error(student, teacher, unseen)
    config = Distillation(steps=150, learning_rate=5e-3)
    steps = distill(student, teacher, batches=inputs(rows=2000).split(50), blocks=blocks, config=config)
    assert error(student, teacher, unseen) < before / 10
    assert [s.number for s in steps] == list(range(150))
    assert all(s.tokens == 50 and s.density is None for s in steps)


@pytest.mark.parametrize("penalty", ["firing", "l1", "log", "hoyer"])
def test_reaches_the_requested_density(penalty):
    teacher, student, blocks = pair(hidden=48)
    unseen = inputs(seed=9, rows=2000)
    assert density(blocks, student, unseen) > 0.4
    target = TargetDensity(density=0.15, gain=0.02, strength=0.1)
    config = Distillation(steps=400, learning_rate=5e-3, pressure=Pressure(target=target, penalty=penalty))
    steps = distill(student, teacher, batches=inputs(rows=4000).split(100), blocks=blocks, config=config)
    assert density(blocks, student, unseen) == pytest.approx(0.15, abs=0.03)
    assert steps[-1].goal == pytest.approx(0.15)
    assert error(student, teacher, unseen) < 1


def test_same_batches_same_result():
    results = []
    for _ in range(2):
        teacher, student, blocks = pair()
        config = Distillation(steps=10, pressure=Pressure(target=TargetDensity(density=0.2)))
        distill(student, teacher, batches=inputs().split(32), blocks=blocks, config=config)
        results.append(student.state_dict())
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])


def test_leaves_random_state_mode_gradients_and_teacher_alone():
    teacher, student, blocks = pair()
    student.train()
    teacher[0].train()
    kept = copy.deepcopy(teacher.state_dict())
    student[0][0].weight.grad = torch.full_like(student[0][0].weight, 7.0)
    student[2][0].bias.requires_grad_(False)
    state = torch.get_rng_state()
    distill(student, teacher, batches=[inputs()], blocks=blocks, config=Distillation(steps=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training and student[0].training and teacher[0].training and not teacher.training
    assert all(torch.equal(kept[k], v) for k, v in teacher.state_dict().items())
    assert (student[0][0].weight.grad == 7).all() and student[0][2].weight.grad is None
    assert not student[2][0].bias.requires_grad and student[2][0].weight.requires_grad
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(m._forward_hooks for m in student.modules())


def test_trains_only_what_it_is_told_to():
    teacher, student, blocks = pair()
    before = copy.deepcopy(student.state_dict())
    only = [student[0][2].weight]
    distill(student, teacher, batches=[inputs()], blocks=blocks, config=Distillation(steps=3), parameters=only)
    assert {k for k, v in student.state_dict().items() if not torch.equal(v, before[k])} == {"0.2.weight"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_failure_gives_the_weights_back_bitwise(failure):
    teacher, student, blocks = pair()
    before = copy.deepcopy(student.state_dict())

    def on_step(step: Step) -> None:
        if step.number == 4:
            raise failure

    with pytest.raises(failure):
        distill(student, teacher, batches=[inputs()], blocks=blocks, config=Distillation(steps=9), on_step=on_step)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
    assert not any(m._forward_hooks for m in student.modules())
    samples = block_samples(teacher, find_blocks(teacher), batches=[inputs()])
    with pytest.raises(failure):
        distill_layerwise(
            student,
            blocks,
            samples=samples,
            config=Distillation(steps=9),
            generator=torch.Generator(),
            on_step=lambda block, step: on_step(step),
        )
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


def test_layerwise_lowers_each_blocks_error():
    teacher, student, blocks = pair()
    samples = block_samples(teacher, find_blocks(teacher), batches=[inputs(rows=2000)])
    before = error(student, teacher, inputs(seed=9))
    history = distill_layerwise(
        student,
        blocks,
        samples=samples,
        config=Distillation(steps=150, learning_rate=5e-3),
        generator=torch.Generator().manual_seed(0),
        rows=64,
    )
    for steps in history.values():
        early, late = (sum(s.fidelity for s in part) for part in (steps[:20], steps[-20:]))
        assert late < early / 3
    assert error(student, teacher, inputs(seed=9)) < before / 3
    assert student[1].weight.eq(teacher[1].weight).all()


def test_layerwise_reaches_the_density_in_each_block():
    teacher, student, blocks = pair(hidden=48)
    samples = block_samples(teacher, find_blocks(teacher), batches=[inputs(rows=2000)])
    target = TargetDensity(density=0.2, gain=0.02, strength=0.1)
    config = Distillation(steps=400, learning_rate=5e-3, pressure=Pressure(target=target))
    distill_layerwise(student, blocks, samples=samples, config=config, generator=torch.Generator().manual_seed(0))
    for block in blocks:
        z = nn.functional.linear(samples[block.name].inputs, block.up.weight, block.up.bias)
        assert (z > 0).float().mean().item() == pytest.approx(0.2, abs=0.04)


def test_token_error_by_hand():
    teacher = torch.tensor([[[0.0, 2.0], [50.0, 50.0]]])
    student = torch.tensor([[[1.0, 2.0], [-9.0, 9.0]]])
    batch = {"attention_mask": torch.tensor([[1, 0]])}
    assert token_error((student,), (teacher,), batch).item() == pytest.approx(0.5 / 2)


def test_padding_is_not_counted():
    teacher, student = Masked(), Masked()
    blocks = find_blocks(student)
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    z = nn.functional.linear(x, student.mlp[0].weight, student.mlp[0].bias)
    wanted = (z[mask.bool()] > 0).float().mean().item()
    config = Distillation(steps=1, pressure=Pressure(target=TargetDensity(density=0.2)))
    (step,) = distill(student, teacher, batches=[{"x": x, "attention_mask": mask}], blocks=blocks, config=config)
    assert step.density == pytest.approx(wanted)
    assert step.tokens == 3


def test_a_clock_that_is_never_ahead_changes_nothing(monkeypatch):
    """Or two runs from one seed would differ by the microseconds of their first step."""
    times = iter([3.0, *(3.0 + 0.017 * k for k in range(9))])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    assert [p for _, p, _ in timed_batches([0], steps=8, seconds=1e6)] == [k / 8 for k in range(8)]


def test_schedule_ends_by_steps_or_by_the_clock(monkeypatch):
    assert [n for n, _, _ in timed_batches([0, 1], steps=5, seconds=None)] == [0, 1, 2, 3, 4]
    now = iter(float(k) for k in range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    seen = list(timed_batches([0], steps=1000, seconds=10.0))
    assert [round(p, 3) for _, p, _ in seen] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    with pytest.raises(DataError, match="no batches"):
        next(timed_batches([], steps=3, seconds=None))


def test_learning_rate_rises_and_falls():
    config = Distillation(steps=10, learning_rate=1.0, warmup=0.1)
    assert config.rate_at(0.0) == pytest.approx(0.01)
    assert config.rate_at(0.1) == pytest.approx(0.9)
    assert config.rate_at(1.0) == 0.0


def test_bad_input():
    teacher, student, blocks = pair()
    with pytest.raises(ConfigError, match="teacher itself"):
        distill(teacher, teacher, batches=[inputs()], blocks=blocks, config=Distillation(steps=1))
    with pytest.raises(DataError, match="diverged at step 0"):
        distill(student, teacher, batches=[inputs() * torch.nan], blocks=blocks, config=Distillation(steps=1))
    with pytest.raises(DataError, match="samples for"):
        distill_layerwise(student, blocks, samples={}, config=Distillation(steps=1), generator=torch.Generator())
    for wrong in ({"steps": 0}, {"steps": 1, "learning_rate": 0.0}, {"steps": 1, "seconds": 0.0}):
        with pytest.raises(ConfigError):
            Distillation(**wrong)
    with pytest.raises(ConfigError, match="Unknown penalty"):
        Pressure(target=TargetDensity(density=0.1), penalty="l7")


def test_of_a_layer_that_computes_gate_and_up_only_the_gate_is_pressed():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.act, self.down = nn.Linear(8, 40), nn.ReLU(), nn.Linear(20, 8)

        def forward(self, x):
            gate, up = self.both(x).chunk(2, -1)
            return self.down(self.act(gate) * up)

    torch.manual_seed(0)
    model, x = nn.Sequential(Merged()), torch.randn(5, 8)
    blocks = find_blocks(model)
    with torch.no_grad(), pre_activations(blocks) as caught:
        model(x)
    (z,) = caught.values()
    assert torch.equal(z, model[0].both(x)[:, :20])
