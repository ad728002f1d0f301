"""What the processes of other engines share: the inputs, timing and pooling. No lazyneuron here, NumPy only."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any

Batch = dict[str, Any]
Run = Callable[[Batch], Any]


class Inputs:
    """Token ids from a file of three parts: ``cases``, ``held_out`` (groups of lines) and ``calibration``."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        self.cases = {name: [_padded(ids) for ids in batches] for name, batches in data["cases"].items()}
        self.held_out = [_padded(ids) for ids in data["held_out"]]
        self.calibration = [_padded([ids]) for ids in data["calibration"]]

    def time(self, run: Run, case: str, number: int, runs: int) -> list[float]:
        """Milliseconds of each run on the batches of a case, from the given one on; one before is not counted."""
        batches = self.cases[case]
        times = []
        for turn in range(runs + 1):
            batch = batches[(number * runs + turn) % len(batches)]
            began = time.perf_counter()
            run(batch)
            times.append(1e3 * (time.perf_counter() - began))
        return times[1:]

    def embed(self, run: Run, path: str) -> None:
        """Write the mean of each line's real tokens, group after group."""
        np = importlib.import_module("numpy")
        rows = []
        for batch in self.held_out:
            weight = batch["attention_mask"][..., None].astype(np.float32)
            rows.append((np.asarray(run(batch), dtype=np.float32) * weight).sum(1) / weight.sum(1))
        np.save(path, np.concatenate(rows))


def _padded(ids: list[list[int]]) -> Batch:
    np = importlib.import_module("numpy")
    width = max(map(len, ids))
    tokens = np.array([row + [0] * (width - len(row)) for row in ids], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids], dtype=np.int64)
    return {"input_ids": tokens, "attention_mask": mask}


def torch_model(folder: str) -> Any:
    """The encoder of a folder as a torch module that gives its last hidden state."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    encoder = transformers.AutoModel.from_pretrained(folder, local_files_only=True).float().eval()

    class Last(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return Last().eval()


def example() -> Batch:
    """A batch to trace with; one line is padded, so that the mask is not all ones."""
    torch = importlib.import_module("torch")
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": torch.ones(2, 8, dtype=torch.long) * 1000, "attention_mask": mask}
