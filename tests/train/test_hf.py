"""The callback in Hugging Face's own Trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

import lazyneuron as lazy
from lazyneuron.core.errors import DivergedError, NoBlocksError
from lazyneuron.induce import TokenWeightNoise
from lazyneuron.train.hf import SparsityCallback
from tests.train.networks import data, net

# the Trainer's checkpoints are resumed into a model that was changed already
pytestmark = pytest.mark.filterwarnings("ignore:save_pretrained writes the weights:UserWarning")


class Tiles(torch.utils.data.Dataset):
    def __init__(self, *, bad: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(32, 1, 4, 4, generator=generator)
        if bad is not None:
            self.x[bad] = torch.nan

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> dict:
        return {"pixel_values": self.x[k], "labels": k % 3}


class Rows(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.x, self.y = data()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> dict:
        return {"x": self.x[k], "labels": self.y[k]}


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net(dropout=0.1)

    def forward(self, x, labels):
        return {"loss": (self.net(x) - labels).square().mean()}


def vit() -> nn.Module:
    torch.manual_seed(0)
    sizes = dict(image_size=4, num_channels=1, patch_size=2, hidden_size=8, intermediate_size=16, num_labels=3)
    model = ViTForImageClassification(
        ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, hidden_act="relu", hidden_dropout_prob=0.1)
    )
    lazy.sparsify_(model, lazy.DoublyBiased())
    return model


def trainer(model, folder, *, callbacks, steps=8, rows=None, **more) -> Trainer:
    settings = dict(per_device_train_batch_size=4, learning_rate=0.05, logging_steps=100, seed=1, report_to="none")
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, use_cpu=True, disable_tqdm=True, **{**settings, **more}
    )
    return Trainer(model=model, args=arguments, train_dataset=rows or Tiles(), callbacks=callbacks)


class Watcher(TrainerCallback):
    """Sees the constraints after every step."""

    def __init__(self, model) -> None:
        self.model, self.least = model, []

    def on_step_end(self, args, state, control, **_):
        scales = [m.weight.detach().abs().min() for n, m in self.model.named_modules() if n.endswith("layernorm_after")]
        self.least.append(float(min(scales)))


class Stop(TrainerCallback):
    """Ends the training early."""

    def __init__(self, stop_at) -> None:
        self.stop_at = stop_at

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.stop_at:
            control.should_training_stop = True


@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_projects_and_logs(tmp_path, accumulation):
    model = vit()
    watcher = Watcher(model)
    callback = SparsityCallback(model, every=3)
    run = trainer(model, tmp_path, callbacks=[callback, watcher], gradient_accumulation_steps=accumulation)
    run.train()
    assert len(watcher.least) == 8 and min(watcher.least) >= 1.0
    rows = [r for r in run.state.log_history if "density/mean" in r]
    assert [r["step"] for r in rows] == [3, 6]
    assert sum(k.startswith("density/") for k in rows[0]) == 3 and 0 < rows[0]["density/mean"] < 1
    hooked = [n for n, m in model.named_modules() if n.endswith((".down", ".up")) and m._forward_hooks]
    assert not hooked and not model._forward_hooks


def test_without_it_the_floor_does_not_hold(tmp_path):
    model = vit()
    watcher = Watcher(model)
    trainer(model, tmp_path, callbacks=[watcher]).train()
    assert min(watcher.least) < 1.0


def test_resuming_in_mid_ramp_is_bitwise(tmp_path):
    # a plain module: transformers 5 renames a ViT's keys in the Trainer's checkpoints and then misses them itself
    def finish(folder, *, stop_at=None, resume=False):
        model = Regression()
        lazy.sparsify_(model, lazy.DoublyBiased.for_finetuning(10))
        model.net.head = TokenWeightNoise(model.net.head, generator=torch.Generator().manual_seed(3))
        callbacks = [SparsityCallback(model, every=0), Stop(stop_at)]
        run = trainer(model, folder, callbacks=callbacks, rows=Rows(), save_steps=4)
        run.train(resume_from_checkpoint=resume or None)
        return model.state_dict()

    wanted = finish(tmp_path / "whole")
    finish(tmp_path / "parts", stop_at=4)
    got = finish(tmp_path / "parts", resume=True)
    assert wanted.keys() == got.keys() and any("zeroth_bias" in k for k in got)
    assert all(torch.equal(wanted[k], got[k]) for k in wanted)


def test_a_bad_loss_stops_it_and_the_checkpoint_stays(tmp_path):
    model = vit()
    run = trainer(model, tmp_path, callbacks=[SparsityCallback(model)], rows=Tiles(bad=5), save_steps=1)
    with pytest.raises(DivergedError, match=r"loss of step \d is nan: what enters the block '.*layers?.0.* is not"):
        run.train()
    assert all(bool(v.isfinite().all()) for v in model.state_dict().values())
    assert run.state.global_step == 0 or (tmp_path / f"checkpoint-{run.state.global_step}").is_dir()


def test_a_model_without_blocks_is_refused():
    with pytest.raises(NoBlocksError):
        SparsityCallback(nn.Linear(2, 2))


def test_an_accelerated_model_is_evaluated_with_the_weights_that_the_default_optimiser_wrote(tmp_path) -> None:
    """The Trainer's default optimiser is fused: its steps raise no version counter."""
    losses = {}
    for name in ("plain", "accelerated"):
        model = vit()
        if name == "accelerated":
            lazy.accelerate_(model, impl="gather")
        arguments = TrainingArguments(
            output_dir=tmp_path / name,
            max_steps=4,
            per_device_train_batch_size=8,
            learning_rate=0.05,
            optim="adamw_torch_fused",
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Tiles(), eval_dataset=Tiles())
        before = trainer.evaluate()["eval_loss"]
        trainer.train()
        losses[name] = (before, trainer.evaluate()["eval_loss"])
    assert abs(losses["plain"][0] - losses["plain"][1]) > 1e-2
    assert losses["accelerated"] == pytest.approx(losses["plain"], rel=1e-5)
    assert all(block.fallbacks.get("training mode") for block in lazy.status(model).blocks)


def test_packing_changes_no_loss_and_is_given_back(tmp_path):
    losses = []
    for packs in (False, True):
        model = vit()
        callback = SparsityCallback(model, every=4, pack=packs)
        done = trainer(model, tmp_path / str(packs), callbacks=[callback], logging_steps=1)
        done.train()
        losses.append([entry["loss"] for entry in done.state.log_history if "loss" in entry])
        assert any("saved_bytes" in entry for entry in done.state.log_history) == packs
        assert not any("forward" in module.__dict__ for module in model.modules())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) == 8
