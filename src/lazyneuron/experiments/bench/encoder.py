"""A sentence encoder in the engines that a user would pick, beside the same encoder made sparse and run by ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from lazyneuron.blocks import find_blocks
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.generation.peers.peer import check_interpreter
from lazyneuron.experiments.demo.cases import cases
from lazyneuron.experiments.demo.distillation import Network, closed_form, sample_blocks, spread
from lazyneuron.experiments.demo.encoder import Encoder, load_minilm, padded
from lazyneuron.experiments.demo.held_out import HeldOut
from lazyneuron.experiments.engines.beside import Effort, beside
from lazyneuron.experiments.engines.engine import ENGINES, Engine
from lazyneuron.experiments.engines.ours import exported, own
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.experiments.texts.corpus import read_texts
from lazyneuron.report import engines_figure, markdown_table, provenance
from lazyneuron.report.engine_rows import front, reasons, table, versions
from lazyneuron.save import load_

TITLE = "A sentence encoder in several engines"
_DENSITY, _DENSER = 0.3, 0.4
_CLOSED_FORM = (
    f"GELU cut and offset at density {_DENSITY:g}, its second layers refitted on the grid of 8 bits, without training"
)


def run(request: Request) -> Record:
    """Time and compare all engines on all-MiniLM-L6-v2."""
    check_interpreter(request.peers_python)
    request.advance(0.0, "text")
    texts = read_texts(most=1_000 if request.quick else 4_000, data=request.data)
    encoder = load_minilm()
    held_out = encoder.tokenize(texts.sample("held_out", 100 if request.quick else 600, seed=SEED + 1), 128)
    train = encoder.tokenize(texts.sample("train", 1_000, seed=SEED), 64)
    sparse, how, denser = _sparse(encoder, train, request)
    batches = [padded(train[i : i + 16]) for i in range(0, 64, 16)]
    models, notes = own(encoder.model, sparse.model, batches)
    state = HeldOut(held_out)
    state.evaluate(Network(model=encoder.model, blocks=find_blocks(encoder.model)), label="original")
    request.advance(0.2, "export")
    batches = [padded(train[i : i + 20]) for i in range(0, 160, 20)]
    with exported(sparse.model, batches) as (engines, more), _denser_exported(denser, batches) as (others, still_more):
        rows = beside(
            encoder.model,
            models,
            cases=cases(encoder.tokenize(texts.sample("held_out", 4_000, seed=SEED + 2), 128)),
            held_out=held_out,
            calibration=train[:160],
            python=request.peers_python,
            effort=Effort(rounds=2, runs=2) if request.quick else Effort(),
            engines=(*ENGINES, *engines, *others),
            advance=lambda share, note: request.advance(0.25 + 0.75 * share, note),
        )
    facts: dict[str, Any] = {
        "model": encoder.name,
        "sparse": how,
        "density": state.evaluate(sparse, label="sparse").sparsity.density,
        "denser": denser and state.evaluate(denser, label="denser").sparsity.density,
        "held_out_lines": len(held_out),
        "kinds": list(texts.train),
        "threads": torch.get_num_threads(),
        "quick": request.quick,
    }
    return benchmark_record("encoder", title=TITLE, rows=rows, settings=facts, notes=[*notes, *more, *still_more])


@contextlib.contextmanager
def _denser_exported(model: Network | None, batches: list[Any]) -> Iterator[tuple[tuple[Engine, ...], tuple[str, ...]]]:
    """The denser model in the format in which density costs least."""
    if model is None:
        yield (), ()
        return
    with exported(model.model, batches, formats=["int8 blocks"], model=f"density {_DENSER:g}") as found:
        yield found


def _sparse(encoder: Encoder, train: list[list[int]], request: Request) -> tuple[Network, str, Network | None]:
    """The sparse model of a folder; or one that takes no training, and a denser one beside it."""
    if request.folder is not None:
        model = load_minilm().model
        load_(model, request.folder)
        return Network(model=model, blocks=find_blocks(model)), "as it was trained and saved", None
    original = Network(model=encoder.model, blocks=find_blocks(encoder.model))
    samples = sample_blocks(original, train)

    def made(density: float, begin: float) -> Network:
        return closed_form(
            original,
            samples,
            density=spread(original.blocks, density),
            activation="offset_gelu",
            bits=8,
            advance=lambda share: request.advance(begin + 0.1 * share, "sparsify"),
        )

    return made(_DENSITY, 0.0), _CLOSED_FORM, made(_DENSER, 0.1)


def summary(record: Record) -> str:
    """The table, and what it says of ours."""
    data = record.data
    facts = data["settings"]
    return (
        f"{facts['model']} in the engines that a user would pick, {facts['threads']} threads, each in a process of its "
        f"own; median ms, and agreement with the original on {facts['held_out_lines']} held-out lines of "
        f"{len(facts['kinds'])} kinds. Ours runs a sparse model of density {facts['density']:.3f}: {facts['sparse']}. "
        f"{_of_denser(facts)}"
        "A star marks the front: no other engine is as fast and agrees as well.\n\n"
        f"{markdown_table(table(data['rows']))}\n\n{_verdict(data['rows'])}\n\n{provenance(record)}\n"
    )


def _of_denser(facts: dict[str, Any]) -> str:
    found = facts.get("denser")
    return "" if found is None else f"A row that names a density runs one made alike, of density {found:.3f}. "


def whole_page(record: Record) -> str:
    """The summary, the figure, versions and settings, and what did not run."""
    rows = record.data["rows"]
    missing = "".join(f"- {sentence}\n" for sentence in [*reasons(rows), *record.data["notes"]])
    parts = [summary(record), "![Time against agreement](assets/encoder-engines.png)\n", versions(rows) + "\n", missing]
    return "\n".join(part for part in parts if part.strip())


def on_the_first_page(record: Record) -> str:
    """The engines on the documentation's first page: the figure, and who is on the front."""
    return (
        "### The same encoder, in the engines that a user would pick\n\n"
        "![Time against agreement](assets/encoder-engines.png)\n\n"
        f"{_standing(record)} [What to use when](which-engine.md).\n\n{provenance(record)}\n\n"
    )


def reached(record: Record) -> str:
    """One item of the benchmarks' first list."""
    return f"- **The same encoder in other engines.** {_standing(record)} [What to use when](which-engine.md).\n"


def _standing(record: Record) -> str:
    facts, rows = record.data["settings"], record.data["rows"]
    return (
        f"{facts['model']}, to the right slower, higher up closer to the original; ours is a sparse model of density "
        f"{facts['density']:.2f}, the others run the original. {_verdict(rows)}"
    )


def _verdict(rows: list[dict[str, Any]]) -> str:
    """On which inputs ours is on the front, and what else is."""
    sentences = []
    for case in dict.fromkeys(case for row in rows for case in row["times"]):
        on = front(rows, case)
        ours = [row["engine"] for row in rows if row["ours"] and row["engine"] in on]
        said = f"{' and '.join(ours)} on the front" if ours else "ours is not on the front"
        sentences.append(f"{case}: {said}, which is {', '.join(on)}.")
    return " ".join(sentences)


EXPERIMENT = Experiment(
    name="encoder",
    title=TITLE,
    run=run,
    kind="benchmark",
    sections={
        "README.md": summary,
        "docs/which-engine.md": whole_page,
        "docs/index.md#engines": on_the_first_page,
        "docs/benchmarks.md#reached": reached,
    },
    figures={"encoder-engines.png": engines_figure},
)
