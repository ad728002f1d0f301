"""What docs/tiny-lm.md shows of the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.experiments.reproduce.tiny_lm.evaluation import TEMPERATURE
from lazyneuron.report import markdown_table, provenance


def section(record: Record) -> str:
    """Finding, training, table, figure and completions, as Markdown."""
    data = record.data
    runs = data["settings"]["runs"]
    parts = (
        f"**{data['finding']}**",
        "### Training",
        markdown_table([_training(run) for run in runs["trained"]]),
        _text(runs["text"]),
        "### Quality, agreement and speed",
        markdown_table(data["rows"]),
        "![Perplexity against density](assets/tiny-lm.png)",
        *_heads(runs["trained"]),
        "### What it writes",
        *(_completion(run) for run in _first_of_each(runs["trained"])),
        provenance(record),
    )
    return "\n\n".join(parts) + "\n\n"


def front(record: Record) -> str:
    """What the documentation's first page shows: the figure and the finding."""
    return (
        "### What sparsity costs a language model\n\n"
        "![Perplexity against density](assets/tiny-lm.png)\n\n"
        f"{record.data['finding']} [Trained here](tiny-lm.md).\n\n{provenance(record)}\n\n"
    )


def _training(run: Mapping[str, Any]) -> dict[str, Any]:
    made = run["training"]
    return {
        "model": run["name"],
        "seed": run["seed"],
        "steps": made["steps"],
        "million tokens": made["tokens"] / 1e6,
        "processor minutes": made["processor_minutes"],
        "seconds a step, median": made["median_step_processor_s"],
        "last training loss": made["curve"][-1]["loss"],
        "density": run["found"]["fp32"]["density"],
        "of the blocks": " ".join(f"{density:.3f}" for density in run["found"]["fp32"]["densities"]),
    }


def _text(facts: Mapping[str, Any]) -> str:
    documents, tokens = facts["documents"], facts["tokens"]
    named = ", ".join(facts["packages"])
    return (
        f"Learned from {documents['train']} files ({facts['characters']['train'] / 1e6:.1f} million characters, "
        f"{tokens['train'] / 1e6:.2f} million tokens) of {named}. Held out: {documents['files']} other files of these "
        f"packages, and {documents['packages']} files of packages that nothing was learned from "
        f"({', '.join(facts['held_out_packages'])}). {facts['left_out']} held-out files were left out since over "
        "a third of their telling lines stand in a training file too."
    )


def _heads(runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the certified head computed; nothing where a record is older than this."""
    rows = [
        {
            "model": run["name"],
            "seed": run["seed"],
            "tokens": way,
            "entries": one["entries"],
            "computed a token": one["candidates"],
            "same token as the whole head": f"{one['same']} of {one['tokens']}",
            "certified": f"{one['certified']} of {one['certified'] + sum(one['all'].values())}",
        }
        for run in runs
        for way, one in run["found"].get("head", {}).items()
    ]
    return ("### The certified head, bf16", markdown_table(rows)) if rows else ()


def _first_of_each(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["seed"] == 0]


def _completion(run: Mapping[str, Any]) -> str:
    made = run["found"]["completions"]
    shown = "\n\n".join(f"```py\n{one['text'].rstrip()}\n```" for one in made)
    prompts = ", ".join(f"`{one['prompt'].strip().splitlines()[0]}`" for one in made)
    return (
        f"{run['name']}, weights {made[0]['format']}, sampled at temperature {TEMPERATURE} after {prompts}:\n\n{shown}"
    )
