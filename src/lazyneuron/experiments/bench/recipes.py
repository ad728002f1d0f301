"""What accelerate_ predicts after each recipe, beside what comes out.

Four residual MLP blocks of the size of ViT-B/16 with synthetic weights; biases are shifted so that about one neuron in
twelve fires. The prediction takes the receipt's times of the blocks and the time of the dense model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import LazyNeuronError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.record import Record
from lazyneuron.core.timing import compared, ratios
from lazyneuron.experiments.bench.correct import refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.induce import DoublyBiased, KeepTop, Relufy, Threshold, shift_bias_, sparsify_
from lazyneuron.induce.training.samples import block_samples
from lazyneuron.measure import measure, mlp_time_share
from lazyneuron.report import markdown_table, provenance

WIDTH, HIDDEN, LAYERS, TOKENS = 768, 3072, 4, (1, 16, 64)
DENSITY = 0.08
RECIPES: dict[str, Any] = {
    "Relufy": Relufy(),
    "DoublyBiased": DoublyBiased(max_len=max(TOKENS)),
    "Threshold": Threshold(density=DENSITY),
    "KeepTop": KeepTop(density=DENSITY),
}


class Layer(nn.Module):
    """A residual MLP block behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.activation = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.GELU()
        self.down = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream (..., width)."""
        y: Tensor = x + self.down(self.activation(self.up(self.norm(x))))
        return y


def sparse_model(recipe: Any, batches: list[Tensor]) -> nn.Module:
    """The model after a recipe, with about the wanted density."""
    torch.manual_seed(SEED)
    model = nn.Sequential(*(Layer() for _ in range(LAYERS))).eval()
    sparsify_(model, recipe, batches=batches)
    if not isinstance(recipe, (Threshold, KeepTop)):
        for block in find_blocks(model, batches[0]):
            found = block_samples(model, [block], batches=batches)
            shift_bias_(block, found[block.name], density=DENSITY)
    return model


def predicted_speedup(receipt: Receipt, tokens: int, share: float) -> float:
    """From the receipt's times of the blocks, densely and by the chosen paths, and their share of the model's time."""
    dense = chosen = 0.0
    for change in receipt.changes:
        *_, path = times = list(change.details["predicted_us"][str(tokens)].values())  # dense first
        dense, chosen = dense + times[0], chosen + path
    return 1 / (1 - share + share * chosen / dense)


@torch.no_grad()
def _rows(name: str, recipe: Any, *, budget_s: float) -> list[dict[str, Any]]:
    """One row for each token count, or one that says why the model is not accelerated."""
    generator = torch.Generator().manual_seed(SEED)
    batches = [torch.randn(1, max(TOKENS), WIDTH, generator=generator) for _ in range(8)]
    model = sparse_model(recipe, batches)
    density = measure(model, batches).density
    fast = copy.deepcopy(model)
    try:
        receipt = accelerate_(fast, batches)
    except LazyNeuronError as error:
        return [{"recipe": name, "density": density, "note": str(error)}]
    found = []
    for tokens in TOKENS:
        inputs = [batch[:, :tokens].contiguous() for batch in batches]
        row = _row(model, fast, inputs, receipt=receipt, jumps=isinstance(recipe, Threshold), budget_s=budget_s)
        found.append({"recipe": name, "tokens": tokens, "density": round(density, 4), **row})
    return found


def _row(
    model: nn.Module, fast: nn.Module, inputs: list[Tensor], *, receipt: Receipt, jumps: bool, budget_s: float
) -> dict[str, Any]:
    """Times at one token count; outputs are compared before anything is timed.

    A threshold is a jump, so a rounding error at its edge shows; few tokens may be there.
    """
    gaps = torch.cat([(fast(x) - model(x)).abs().amax(-1).flatten() for x in inputs])
    off = float((gaps > 1e-4).float().mean())
    refuse_wrong("The accelerated model", off <= (0.02 if jumps else 0.0))
    times = compared({"dense": model, "accelerated": fast}, inputs, budget_s=budget_s, seed=SEED)
    each = ratios(times["dense"], times["accelerated"])
    predicted = predicted_speedup(receipt, inputs[0].shape[1], mlp_time_share(model, inputs))
    return {
        "tokens off by over 1e-4": off,
        "dense_us": round(times["dense"].median_us, 1),
        "accelerated_us": round(times["accelerated"].median_us, 1),
        "speed-up": round(each.median, 3),
        "quartiles": [round(q, 3) for q in each.quartiles],
        "predicted": round(predicted, 3),
        "predicted over measured": round(predicted / each.median, 3),
    }


def run(request: Request) -> Record:
    """Every recipe at every token count."""
    rows: list[dict[str, Any]] = []
    for number, (name, recipe) in enumerate(RECIPES.items()):
        request.advance(number / len(RECIPES), name)
        rows += _rows(name, recipe, budget_s=0.3 if request.quick else 4.0)
    title = (
        f"Speed-up after each recipe, predicted and measured (synthetic weights, {LAYERS} blocks of "
        f"{WIDTH} x {HIDDEN}, float32)"
    )
    return benchmark_record("recipes", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    found = record.data["rows"]
    rows = [{**row, "quartiles": " to ".join(map(str, row["quartiles"]))} for row in found if "quartiles" in row]
    refused = "\n".join(f"- {row['recipe']}: {row['note']}" for row in found if "note" in row)
    return f"**{record.data['title']}**\n\n{markdown_table(rows)}\n\n{refused}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="recipes",
    title="Speed-up after each recipe, predicted and measured",
    run=run,
    kind="benchmark",
    sections={"docs/accelerate.md": _section},
)
