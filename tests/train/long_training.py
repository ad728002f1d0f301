"""A training that is killed by its test: ``python -m tests.train.long_training FOLDER STEPS [PAUSE]``."""

from __future__ import annotations

import hashlib
import random
import sys
import time

import numpy as np
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.induce import DensityController, Pressure, TargetDensity, TokenWeightNoise, pre_activations
from lazyneuron.induce.training.pressure import total_pressure
from lazyneuron.train import BatchOrder, Checkpoints
from tests.train.networks import data, net


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.detach().numpy().tobytes())
    return digest.hexdigest()


def main(folder: str, steps: int, pause: float) -> None:
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    model = net(dropout=0.2)
    lazy.sparsify_(model, lazy.DoublyBiased.for_finetuning(30))
    blocks = lazy.find_blocks(model)
    model.head = TokenWeightNoise(model.head, generator=torch.Generator().manual_seed(3))
    model.layers[0].mlp[3] = TokenWeightNoise(model.layers[0].mlp[3])  # from torch's own random state
    x, y = data()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pressure = Pressure(target=TargetDensity(density=0.2, strength=0.1))
    controller, order = DensityController(pressure.target), BatchOrder(len(x), batch_size=20, seed=4)
    generator = torch.Generator().manual_seed(9)
    checkpoints = Checkpoints(
        folder, model, optimizer=optimizer, schedule=schedule, controller=controller, order=order, generator=generator
    )
    first = checkpoints.resume_()
    if first == 0:
        lazy.project_(model, step=0)
    print("from", first, flush=True)
    for step in range(first + 1, steps + 1):
        rows = next(order)
        with pre_activations(blocks) as caught:
            inputs = x[rows] + 0.1 * torch.randn(x[rows].shape, generator=generator)
            inputs = inputs * (1 + 0.01 * random.random()) + 0.01 * float(np.random.rand())
            loss = (model(inputs) - y[rows]).square().mean()
            penalty, density = total_pressure(pressure, blocks, caught=caught, mask=None)
        (loss + controller.update(density, progress=step / steps) * penalty).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        lazy.project_(model, step=step)
        if step % 3 == 0:
            checkpoints.save(step)
        print(step, flush=True)
        time.sleep(pause)
    print("weights", fingerprint(model), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
