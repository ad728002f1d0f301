"""The callback in Lightning's own Trainer."""

from __future__ import annotations

import logging

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lazyneuron as lazy
from lazyneuron.core.errors import DivergedError
from lazyneuron.induce import TokenWeightNoise
from lazyneuron.train import BatchOrder, OrderedLoader
from lazyneuron.train.lightning import SparsityCallback
from tests.train.networks import data, net

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice about workers and short epochs
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Task(LightningModule):
    def __init__(self, *, ramp: int = 0, noise: bool = False) -> None:
        super().__init__()
        self.net = net()
        lazy.sparsify_(self.net, lazy.DoublyBiased.for_finetuning(ramp) if ramp else lazy.DoublyBiased())
        if noise:
            self.net.head = TokenWeightNoise(self.net.head, generator=torch.Generator().manual_seed(3))
        self.least: list[float] = []

    def training_step(self, batch, _):
        x, y = batch
        return (self.net(x) - y).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.05)

    def on_train_batch_start(self, *_):
        self.least.append(min(float(layer.norm.weight.abs().min()) for layer in self.net.layers))


def fit(task, folder, *, callbacks, steps=8, path=None, bad=False, ordered=False, **more):
    x, y = data()
    if bad:
        y[20] = torch.inf
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    if ordered:
        loader = OrderedLoader(BatchOrder(len(x), batch_size=8, seed=2), lambda rows: (x[rows], y[rows]))
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=callbacks,
        **{"logger": False, "enable_checkpointing": False, **more},
    )
    trainer.fit(task, loader, ckpt_path=path)
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_projects_and_logs_to_tensorboard(tmp_path, accumulation):
    task = Task()
    callback = SparsityCallback(task.net, every=3)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(task, tmp_path, callbacks=[callback], logger=logger, accumulate_grad_batches=accumulation)
    assert min(task.least) >= 1.0
    assert [r.step for r in callback.monitor.readings] == [3, 6]
    seen = EventAccumulator(str(tmp_path)).Reload().Scalars("density/mean")
    assert [p.step for p in seen] == [3, 6]
    assert [p.value for p in seen] == pytest.approx([r.mean_density for r in callback.monitor.readings])
    assert not any(m._forward_hooks for layer in task.net.layers for m in layer.mlp)


def test_without_it_the_floor_does_not_hold(tmp_path):
    task = Task()
    fit(task, tmp_path, callbacks=[])
    assert min(task.least) < 1.0


@pytest.mark.parametrize(("stop", "ordered"), [(6, False), (4, True), (6, True), (8, True)])  # an epoch has six steps
def test_resuming_in_mid_ramp_is_bitwise(tmp_path, stop, ordered):
    def finish(*, steps, path=None, folder):
        task = Task(ramp=10, noise=True)
        keeper = ModelCheckpoint(folder, every_n_train_steps=stop, save_top_k=-1, filename="{step}")
        callbacks = [SparsityCallback(task.net, every=0), keeper]
        fit(task, folder, callbacks=callbacks, steps=steps, path=path, enable_checkpointing=True, ordered=ordered)
        return task.state_dict()

    wanted = finish(steps=15, folder=tmp_path / "whole")
    finish(steps=stop, folder=tmp_path / "parts")
    got = finish(steps=15, folder=tmp_path / "rest", path=tmp_path / "parts" / f"step={stop}.ckpt")
    assert all(torch.equal(wanted[k], got[k]) for k in wanted)


def test_a_bad_loss_stops_it_before_the_weights_change(tmp_path):
    task = Task()
    keeper = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    with pytest.raises(
        DivergedError, match=r"loss of step 3 is inf: the outputs of all blocks .* checkpoint is .*ckpt"
    ):
        fit(task, tmp_path, callbacks=[SparsityCallback(task.net), keeper], bad=True, enable_checkpointing=True)
    assert all(bool(v.isfinite().all()) for v in task.state_dict().values())
    assert not task.net._forward_hooks and not task.net._forward_pre_hooks


def test_packing_changes_no_weight_and_is_given_back(tmp_path):
    weights = []
    for packs in (False, True):
        torch.manual_seed(0)
        task = Task()
        callback = SparsityCallback(task.net, every=4, pack=packs)
        fit(task, tmp_path, callbacks=[callback])
        weights.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
        assert bool(callback.monitor.readings[0].kept_bytes) == packs
        assert not any("forward" in module.__dict__ for module in task.modules())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)
