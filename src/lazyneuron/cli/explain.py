"""``lazyneuron explain``: why a model's neurons are as silent as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lazyneuron.explain import BlockExplanation, BlockSpectrum, ExplainReport

_NO_LABELS = (
    "The data have no labels: the loss is half the mean square of the output, so gradients say how strongly each "
    "neuron "
    "moves the output, not how wrong it is."
)


def explain(
    model: Annotated[str, typer.Argument(help="A local Hugging Face directory, or package.module:callable.")],
    *,
    data: Annotated[Path, typer.Option("--data", help='UTF-8 text, .jsonl with "text", .npy, .npz or .safetensors.')],
    batches: Annotated[int | None, typer.Option("--batches", help="At most so many batches.", min=1)] = 8,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a batch.", min=1)] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Read pickled weights too: they can run any code their author put in them."
        ),
    ] = False,
) -> None:
    """Measure gradients, flatness and spectra of a model's MLP blocks, without changing the model."""
    from rich.console import Console
    from rich.progress import track

    from lazyneuron.blocks import find
    from lazyneuron.cli.data import load_batches
    from lazyneuron.cli.model import load_model
    from lazyneuron.cli.output import check_writable
    from lazyneuron.core.record import write_text
    from lazyneuron.explain import explain as look

    check_writable(json_file)
    progress = Console(stderr=True)
    with progress.status(f"Loading {model}"):
        loaded = load_model(model, allow_pickle=allow_pickle)
        items = load_batches(data, loaded, batch_size=batch_size, batches=batches)
    with progress.status("Looking for MLP blocks"):
        found = find(loaded.model).or_raise()
    shown = track(items, description="Explaining", console=progress, transient=True, disable=not progress.is_terminal)
    report = look(loaded.model, shown, _half_square, blocks=found.blocks)
    report = dataclasses.replace(report, notes=(*report.notes, *map(str, found.rejected)))
    _print(report, Console())
    if json_file is not None:
        write_text(json_file, report.to_record().to_json())


def _half_square(output: Any, _: Any) -> Any:
    """Half the mean square of each sample's first output tensor."""
    while not hasattr(output, "square"):
        output = output[0]
    return 0.5 * output.float().square().flatten(1).mean(1)


def _print(report: ExplainReport, console: Console) -> None:
    from rich.markup import escape

    from lazyneuron.report import plain_table, rich_table

    for title, rows in (
        ("Gradients and flatness", [_gradients(b) for b in report.blocks]),
        ("Spectra of the first layers", [_spectrum(s) for s in report.spectra]),
    ):
        if console.is_terminal:
            console.print(rich_table(rows, title=title))
        else:  # a pipe or a file has no width to fit into
            console.print(f"{title}\n{plain_table(rows)}", soft_wrap=True, highlight=False)
    for note in (_NO_LABELS, *report.notes):
        console.print(escape(note), style="yellow", soft_wrap=True, highlight=False)


def _gradients(block: BlockExplanation) -> dict[str, Any]:
    from lazyneuron.report.numbers import share, significant

    return {
        "block": block.name,
        "density": share(block.density),
        "derivative density": share(block.derivative_density),
        "small gradients": share(block.effective_small),
        "AS up": significant(block.as_up),
        "AS down": significant(block.as_down),
        "identity off by": None if block.degenerate else f"{block.identity_residual:.1e}",
        "gradient directions": f"{block.gradient_participation:.1f}",
    }


def _spectrum(spectrum: BlockSpectrum) -> dict[str, Any]:
    from lazyneuron.report.numbers import ratio, share, significant

    found = spectrum.concentration
    return {
        "block": spectrum.name,
        "largest / smallest singular value": significant(found.singular_ratio),
        "80 % of eigenvalues within": ratio(found.mass_ratio),
        "zero share": share(found.zero_share),
        "participation": f"{found.participation:.1f} of {found.rank}",
        "distance from Marchenko-Pastur": f"{spectrum.fit.distance:.3f}",
    }
