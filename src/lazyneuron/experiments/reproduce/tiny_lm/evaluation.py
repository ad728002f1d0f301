"""Everything that is measured on a trained model except time; each part is kept, so that a killed run goes on."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import CheckpointError
from lazyneuron.core.record import write_text
from lazyneuron.experiments.reproduce.tiny_lm.decoding import Path as Decoded
from lazyneuron.experiments.reproduce.tiny_lm.decoding import agreement, completions, decode
from lazyneuron.experiments.reproduce.tiny_lm.head import certified_decoding
from lazyneuron.experiments.reproduce.tiny_lm.model import quiet
from lazyneuron.experiments.reproduce.tiny_lm.quality import (
    FORMATS,
    Format,
    dense_model,
    formats_for,
    sparse_model,
)
from lazyneuron.experiments.reproduce.tiny_lm.text import read_text, tokenizer_of, windows
from lazyneuron.generate.perplexity import losses, perplexity
from lazyneuron.induce import Threshold, sparsify_
from lazyneuron.measure import measure

PROMPTS = (
    'def read_lines(path):\n    """',
    "class ParseError(",
    "class Stack:\n    def __init__(self",
    '    def __len__(self):\n        """Return',
    "    try:\n        import numpy as np\n    except",
    "import os\nimport sys\n\n\ndef main(",
)
TEMPERATURE = 0.6
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.25}  # of a logit near 20; bfloat16 has steps of 1/8 there


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What to measure on one trained model.

    Attributes:
        model: folder of the trained model.
        text: folder with the token ids.
        folder: where results are kept.
        width: of the model; formats whose groups do not divide it are left out.
        length: tokens of a window.
        windows: held-out windows of each kind.
        prompts, tokens: for the agreement of decoding: beginnings of held-out windows, and tokens after each.
        thresholds: densities to cut a SiLU model to, each calibrated on training windows.
    """

    model: Path
    text: Path
    folder: Path
    width: int = 256
    length: int = 512
    windows: int = 64
    prompts: int = 16
    tokens: int = 128
    thresholds: tuple[float, ...] = ()


def evaluate(job: EvaluationJob, advance: Callable[[float], None]) -> dict[str, Any]:
    """Measure a model in every format, then cut by thresholds; parts that are in the folder are read.

    Returns:
        Part -> what was found: one for each format's name, ``"threshold d"``, ``"head"`` and ``"completions"``.

    Raises:
        CheckpointError: there is no trained model or no text.
    """
    found: dict[str, Any] = {}
    parts: list[tuple[str, Callable[[Callable[[float], None]], Any]]] = [
        *((form.name, lambda told, form=form: _format(job, form, told)) for form in formats_for(job.width)),  # type: ignore[misc]
        *((f"threshold {d:g}", lambda told, d=d: _threshold(job, d, told)) for d in job.thresholds),  # type: ignore[misc]
        ("head", lambda told: certified_decoding(load_trained(job.model), _beginnings(job), job.tokens)),
        ("completions", lambda told: _completions(job)),
    ]
    for number, (name, measure_part) in enumerate(parts):
        file = job.folder / f"{name.replace(' ', '-').replace(',', '')}.json"
        if file.is_file():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
        else:
            found[name] = measure_part(lambda share, number=number: advance((number + share) / len(parts)))  # type: ignore[misc]
            write_text(file, json.dumps(found[name]))
        advance((number + 1) / len(parts))
    return found


def load_trained(folder: Path) -> Any:
    """A trained model in evaluation mode.

    Raises:
        CheckpointError: the folder holds none.
    """
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"There is no trained model in {folder} ({error}); train it again.") from error
    return model.eval()


def _held_out(job: EvaluationJob, side: str) -> Tensor:
    text = read_text(job.text)
    if text is None:
        raise CheckpointError(f"There is no text in {job.text}; run lazyneuron reproduce tiny-lm from the beginning.")
    return windows(getattr(text, side), job.length, job.windows)


def _format(job: EvaluationJob, form: Format, advance: Callable[[float], None]) -> dict[str, Any]:
    files, packages = _held_out(job, "files"), _held_out(job, "packages")
    trained = load_trained(job.model)
    dense = dense_model(trained, form)
    first = losses(dense, files, advance=lambda share: advance(0.2 * share))
    found: dict[str, Any] = {
        "perplexity": perplexity(first),
        "perplexity_packages": perplexity(losses(dense, packages)),
        "losses": first.mean(1).tolist(),
    }
    if form == FORMATS[0]:
        report = measure(trained, [{"input_ids": rows} for rows in torch.split(files, 8)])
        found["density"] = report.density
        found["densities"] = [block.density for block in report.blocks]
    advance(0.4)
    path = _path(job, trained)
    decoded = decode(dense, _beginnings(job), job.tokens, along=path.chosen)
    found["as_fp32"] = _agreed(path, decoded, form)
    advance(0.6)
    sparse = sparse_model(trained, form)
    if sparse is not None:
        found["perplexity_sparse"] = perplexity(losses(sparse, files))
        advance(0.8)
        other = decode(sparse, _beginnings(job), job.tokens, along=path.chosen)
        found["sparse_as_dense"] = _agreed(decoded, other, form)
    return found


def _beginnings(job: EvaluationJob) -> Tensor:
    """Of held-out windows, to decode after."""
    return _held_out(job, "files")[: job.prompts, :64]


def _path(job: EvaluationJob, trained: Any) -> Decoded:
    """The greedy tokens of the model in fp32, on whose path all formats are compared."""
    file = job.folder / "path.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        return Decoded(chosen=torch.tensor(kept["chosen"]), gap=torch.tensor(kept["gap"]))
    path = decode(trained, _beginnings(job), job.tokens)
    write_text(file, json.dumps({"chosen": path.chosen.tolist(), "gap": path.gap.tolist()}))
    return path


def _agreed(first: Decoded, second: Decoded, form: Format) -> dict[str, int]:
    return dataclasses.asdict(agreement(first, second, rounding=ROUNDING[form.dtype]))


def _threshold(job: EvaluationJob, density: float, advance: Callable[[float], None]) -> dict[str, Any]:
    """The model with its gate's small values cut off, without training."""
    files = _held_out(job, "files")
    text = read_text(job.text)
    assert text is not None
    model = copy.deepcopy(load_trained(job.model))
    batches = [{"input_ids": rows} for rows in torch.split(windows(text.train, job.length, 16), 4)]
    sparsify_(model, Threshold(density=density), batches=batches)
    first = losses(model, files, advance=advance)
    report = measure(model, [{"input_ids": rows} for rows in torch.split(files, 8)])
    return {"perplexity": perplexity(first), "density": report.density, "losses": first.mean(1).tolist()}


def _completions(job: EvaluationJob) -> list[dict[str, str]]:
    """What the model makes of some beginnings, sparsely in 4 bits where it can; greedily it would go round."""
    text = read_text(job.text)
    assert text is not None
    trained = load_trained(job.model)
    form = FORMATS[3]
    model = sparse_model(trained, form) or trained
    name = form.name if model is not trained else FORMATS[0].name
    made = completions(model, tokenizer_of(text), PROMPTS, tokens=64, temperature=TEMPERATURE)
    return [{"format": name, "prompt": p, "text": t} for p, t in zip(PROMPTS, made, strict=True)]
