"""The certified head beside the whole one: synthetic heads in the sizes of language models, and a trained one.

Random rows are the worst case of a head: nothing stands out, so many entries lie close to the largest. The trained one
is the embedding of all-MiniLM-L6-v2, whose hidden states come from docstrings.
"""

from __future__ import annotations

import builtins
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate.head.execution import CertifiedHead
from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.record import Record
from lazyneuron.core.timing import compared, ratios
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.report import markdown_table, provenance

SIZES = (
    (128256, 2048),
    (151936, 896),
    (262144, 640),
    (32000, 2048),
)  # of models with 1, 0.5, 0.27 and 1 billion weights
LARGEST = (1, 50)
INPUTS = 32


def synthetic(entries: int, width: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Normal rows, made in parts to bound memory, and normal inputs (32, width)."""
    generator = torch.Generator().manual_seed(SEED)
    weight = torch.empty(entries, width, dtype=dtype)
    for start in range(0, entries, 8192):
        part = weight[start : start + 8192]
        part.copy_(torch.randn(part.shape, generator=generator) * 0.02)
    return weight, torch.randn(INPUTS, width, generator=generator).to(dtype)


def trained() -> tuple[Tensor, Tensor]:
    """The embedding of all-MiniLM-L6-v2 in bfloat16, and its hidden states at the ends of docstrings.

    Raises:
        ImplUnavailable: the package with its weights is missing.
    """
    from lazyneuron.experiments.demo.encoder import load_minilm

    encoder = load_minilm()
    texts = [text for name in sorted(vars(builtins)) if (text := getattr(builtins, name).__doc__)][:INPUTS]
    with torch.no_grad():
        rows = [torch.tensor([encoder.tokenize([text], 48)[0]]) for text in texts]
        hidden = torch.stack([encoder.model(input_ids=ids).last_hidden_state[0, -2] for ids in rows])
    embedding: Any = encoder.model.get_input_embeddings()  # type: ignore[operator]
    return embedding.weight.detach().to(torch.bfloat16), hidden.to(torch.bfloat16)


@torch.no_grad()
def _row(name: str, weight: Tensor, inputs: Tensor, k: int, *, budget_s: float) -> dict[str, Any]:
    """Times at one token; the entries that count are compared before anything is timed."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    head = CertifiedHead(LinearSite(name=name, module=layer))
    tokens = list(inputs[:, None, None])
    counts = [head.candidates_of(x, k) for x in tokens]
    row = {
        "head": name,
        "entries": weight.shape[0],
        "width": weight.shape[1],
        "dtype": str(weight.dtype).removeprefix("torch."),
        "k": k,
        "candidates": statistics.median(counts),
        "most candidates": max(counts),
    }
    for x in tokens:
        part, whole = head.largest(x, k), F.linear(x, weight)
        if isinstance(part, str):
            return row | {"note": part}
        refuse_wrong("The certified head", _same(part, whole, k))
    words = weight.view(torch.int64)
    calls = {
        "whole": lambda x: F.linear(x, weight),
        "certified": lambda x: head.largest(x, k),
        "read": lambda x: words.sum(),
    }
    times = compared(calls, tokens, budget_s=budget_s, seed=SEED)
    speed, read = ratios(times["whole"], times["certified"]), ratios(times["read"], times["certified"])
    packed = head._packed
    assert packed is not None
    needed = packed.sketch.bytes + statistics.median(counts) * weight.shape[1] * weight.element_size()
    return row | {
        "whole_us": round(times["whole"].median_us, 1),
        "read_us": round(times["read"].median_us, 1),
        "certified_us": round(times["certified"].median_us, 1),
        "speed-up": round(speed.median, 3),
        "quartiles": [round(q, 3) for q in speed.quartiles],
        "over reading": round(read.median, 3),
        "byte limit": round(weight.numel() * weight.element_size() / needed, 3),
        "added_bytes": packed.sketch.bytes,
    }


def _same(part: Tensor, whole: Tensor, k: int) -> bool:
    """Are the k largest, ties included, and the first of the largest the same?"""
    least = whole.topk(k, -1).values[..., -1:]
    kept = [torch.where(logits < least, -torch.inf, logits) for logits in (part, whole)]
    return torch.equal(*kept) and torch.equal(part.argmax(-1), whole.argmax(-1))


def run(request: Request) -> Record:
    """Every head, for greedy decoding and for transformers' default top_k."""
    needs_kernels()
    sizes = SIZES[-1:] if request.quick else SIZES
    heads: Sequence[Any] = [("synthetic", size) for size in sizes] + [("all-MiniLM-L6-v2", None)]
    rows: list[dict[str, Any]] = []
    for number, (name, size) in enumerate(heads):
        request.advance(number / len(heads), name if size is None else f"{size[0]} x {size[1]}")
        try:
            weight, inputs = trained() if size is None else synthetic(*size)
        except ImplUnavailable as error:
            rows.append({"head": name, "note": str(error)})
            continue
        rows += [_row(name, weight, inputs, k, budget_s=0.5 if request.quick else 3.0) for k in LARGEST]
        del weight
    title = "The head of a language model for one token: all entries, and those that may be chosen"
    return benchmark_record("head", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    found = record.data["rows"]
    shown = [{**row, "quartiles": " to ".join(map(str, row["quartiles"]))} for row in found if "quartiles" in row]
    left_out = "".join(f"- {row['head']}: {row['note']}\n" for row in found if "note" in row)
    return f"**{record.data['title']}**\n\n{markdown_table(shown)}\n\n{left_out}{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="head",
    title="The certified head of a language model",
    run=run,
    kind="benchmark",
    sections={"docs/head.md": _section},
)
