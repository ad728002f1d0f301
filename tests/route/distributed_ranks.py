"""Run by torchrun in tests/route/test_distributed.py: one case, and what each rank saw in a file of its own."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lazyneuron.core.errors import DataError
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.distributed import fit_distributed


def rows(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(6000, 3, generator=g, dtype=torch.float64)
    y = (6 * x[:, :1]).floor() + (x[:, 1:2] > 0.5)
    return x, y + (0.37 * x[:, 2:] if kind == "real" else 0)


def main(kind: str, folder: Path) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    x, y = rows(kind)
    own = slice(rank, None, size)
    x, y = x[own], y[own]
    scale = None if kind == "choose" else 4
    settings = BucketSettings(degree=0, shrinkage=0.0, scale=scale, directions="orthogonal", tables=2)
    if rank == size - 1:
        if kind == "schema":
            x = x[:, :2]
        if kind == "nan":
            x[900, 1] = torch.nan
        if kind == "empty":
            x, y = x[:0], y[:0]

    def batches():  # type: ignore[no-untyped-def]
        for number, part in enumerate(zip(x.split(700), y.split(700), strict=True)):
            if len(part[0]):
                if kind == "die" and rank == size - 1 and number == 1:
                    os._exit(3)
                yield part

    try:
        model = fit_distributed(settings, batches())
        asked = rows("real")[0][:500]
        found = {
            "predictions": model.predict(asked),
            "rows": torch.tensor(model.rows),
            "hash": torch.cat([p.affine.w.flatten() for p in model.pyramids]),
            "bases": torch.tensor([p.base for p in model.pyramids]),
            "means": model.frame.mean,
            "scale": model.frame.scale,
        }
        torch.save(found, folder / f"{rank}.pt")
    except DataError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    if kind != "die":
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
