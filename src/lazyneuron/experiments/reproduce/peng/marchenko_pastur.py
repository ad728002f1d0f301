"""Peng et al.: do the Gram matrices that training accumulates look like those of independent samples?"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.training.images import digits
from lazyneuron.explain import GramTracker, stieltjes_bound

WIDTHS = (16, 64, 128, 224, 336, 400, 512, 624, 720, 800, 912, 1024)
DECAYS = (0.0, 0.01, 0.1, 0.3)
# mean alpha / N read off the figures of the authors' notebook `mp.ipynb`, an older sweep of other widths on MNIST
_PUBLISHED = {
    "samples": "N = 10: 0.37, 100: 0.255, 200: 0.19, 600: 0.11",
    "gradients": "N = 10: 0.30, 100: 0.08, 200: 0.05, 600: 0.02",
}
_DIFFERS = (
    "Digits of 8 x 8 pixels, shifted by up to one pixel, in place of MNIST at 32 x 32 with crops and rotations; 40 "
    "epochs instead of 100. The published values are of an older sweep, read off its "
    "figures."
)


class Net(nn.Module):
    """A linear layer, four residual blocks of a norm without affine, a linear layer and ReLU, and a linear head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(4))
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits (n, 10), the input and the ReLU output (n, width) of each block's linear layer."""
        z = self.stem(x)
        inputs, outputs = [], []
        for norm, linear in zip(self.norms, self.linears, strict=True):
            h = norm(z)
            a = F.relu(linear(h))
            inputs.append(h)
            outputs.append(a)
            z = z + a
        return self.head(z), inputs, outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        width, weight_decay, seed, epochs: of it.
        lr, batch: as published.
    """

    width: int
    weight_decay: float
    seed: int
    epochs: int
    lr: float = 1e-3
    batch: int = 32


def train_net(job: Run, advance: Callable[[float], None]) -> dict[str, float]:
    """Train, add up the Gram matrices of every step, and compare them with independent samples."""
    torch.manual_seed(job.seed)
    images, net = digits(), Net(job.width)
    optimizer = torch.optim.SGD(net.parameters(), lr=job.lr, weight_decay=job.weight_decay)
    trackers = {
        kind: [GramTracker(job.width, lr=job.lr, weight_decay=job.weight_decay) for _ in net.linears]
        for kind in ("samples", "gradients")
    }
    generator = torch.Generator().manual_seed(job.seed)
    for epoch in range(job.epochs):
        for rows in torch.split(torch.randperm(len(images.train), generator=generator), job.batch):
            dx, dy = torch.randint(-1, 2, (2,), generator=generator).tolist()
            x = torch.roll(images.train[rows], (dx, dy), (-2, -1)).flatten(1)
            logits, inputs, outputs = net(x)
            for a in outputs:
                a.retain_grad()
            loss = F.cross_entropy(logits, images.train_labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for k, (h, a) in enumerate(zip(inputs, outputs, strict=True)):
                trackers["samples"][k].update(h)
                assert a.grad is not None
                trackers["gradients"][k].update(a.grad * len(rows))
        advance((epoch + 1) / job.epochs)
    found: dict[str, float] = {}
    for kind, each in trackers.items():
        found[kind] = statistics.mean(t.participation / job.width for t in each)
        found[f"{kind} anisotropy"] = statistics.mean(t.anisotropy / job.width for t in each)
    steps = min(trackers["samples"][0].steps, trackers["samples"][0].effective_steps)
    found["steps"] = steps
    found["independent"] = 1 / (1 + job.width / (steps * job.batch))
    found["bound"] = stieltjes_bound(job.width, steps, job.batch, found["gradients"], found["gradients anisotropy"])[0]
    return found


def _run(request: Request) -> Finding:
    widths, epochs = ((16, 64), 2) if request.quick else (WIDTHS, 40)
    cases = [(width, decay) for decay in DECAYS for width in widths]

    def job(case: tuple[int, float], seed: int) -> Run:
        return Run(width=case[0], weight_decay=case[1], seed=seed, epochs=epochs)

    found = run_cases(train_net, cases, job=job, seeds=request.seeds, advance=request.advance, folder=request.folder)
    by_case = dict(zip(cases, found, strict=True))

    def mean(key: str, width: int, decay: float) -> float:
        return statistics.mean(run[key] for run in by_case[width, decay])

    rows = [_row(width, decay, mean) for decay in DECAYS for width in widths]
    rows[0]["paper"] = "; ".join(f"{kind}, {text}" for kind, text in _PUBLISHED.items())
    widest = rows[len(widths) - 1]
    return Finding(
        rows=rows,
        curves=[
            {"label": f"{kind}, weight decay {decay:g}", "x": widths, "y": [mean(kind, w, decay) for w in widths]}
            for kind in ("samples", "gradients")
            for decay in (DECAYS[0], DECAYS[-1])
        ],
        sentence=f"At width {widest['width']} the accumulated Gram matrix of the samples spreads over "
        f"{widest['alpha / N, samples']:.2f} of the directions and that of the gradients over "
        f"{widest['alpha / N, gradients']:.3f}, where independent isotropic samples would give "
        f"{widest['alpha / N, independent samples']:.2f}: "
        "the law's assumption of isotropy fails the more, the wider the layer.",
        axes=("width", "alpha / N"),
        facts={"epochs": epochs, "lr": 1e-3, "batch": 32, "seeds": request.seeds},
    )


def _row(width: int, decay: float, mean: Callable[[str, int, float], float]) -> dict[str, Any]:
    return {
        "width": width,
        "weight decay": decay,
        "alpha / N, samples": mean("samples", width, decay),
        "alpha / N, gradients": mean("gradients", width, decay),
        "alpha / N, independent samples": mean("independent", width, decay),
        "bound on the transform's imaginary part": mean("bound", width, decay),
        "paper": None,
    }


EXPERIMENT = published(
    name="peng-marchenko-pastur",
    title="How isotropic the accumulated Gram matrices of samples and gradients are",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004; the authors' notebook mp.ipynb",
    differs=_DIFFERS,
    run=_run,
)
