"""``lazyneuron explain``: why a model's neurons are as silent as they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lazyneuron.cli.options import AllowPickle, Batches, BatchSize, Data, JsonFile, Model

if TYPE_CHECKING:
    from lazyneuron.explain import BlockExplanation, BlockSpectrum, ExplainReport

_NO_LABELS = (
    "The data have no labels: the loss is half the mean square of the output, so gradients say how strongly each "
    "neuron moves the output, not how wrong it is."
)


def explain(
    model: Model,
    *,
    data: Data,
    batches: Batches = 8,
    batch_size: BatchSize = 16,
    json_file: JsonFile = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Measure gradients, flatness and spectra of a model's MLP blocks, without changing the model."""
    from lazyneuron.blocks import find
    from lazyneuron.cli.inputs import load_inputs
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.cli.screen import status, watched
    from lazyneuron.explain import explain as explain_blocks

    check_writable(json_file)
    loaded, items = load_inputs(model, data, batches=batches, batch_size=batch_size, allow_pickle=allow_pickle)
    with status("Looking for MLP blocks"):
        found = find(loaded.model).or_raise()
    report = explain_blocks(loaded.model, watched(items, "Explaining"), _half_square, blocks=found.blocks)
    report = dataclasses.replace(report, notes=(*report.notes, *map(str, found.rejected)))
    _print(report)
    write_record(json_file, report.to_record())


def _half_square(output: Any, _: Any) -> Any:
    """Half the mean square of each sample's first output tensor."""
    while not hasattr(output, "square"):
        output = output[0]
    return 0.5 * output.float().square().flatten(1).mean(1)


def _print(report: ExplainReport) -> None:
    from lazyneuron.cli.screen import print_notes, print_table

    print_table("Gradients and flatness", [_gradients(b) for b in report.blocks])
    print_table("Spectra of the first layers", [_spectrum(s) for s in report.spectra])
    print_notes((_NO_LABELS, *report.notes))


def _gradients(block: BlockExplanation) -> dict[str, Any]:
    from lazyneuron.report.numbers import share, significant

    return {
        "block": block.name,
        "density": share(block.density),
        "derivative density": share(block.derivative_density),
        "small gradients": share(block.effective_small),
        "AS up": significant(block.as_up),
        "AS down": significant(block.as_down),
        "identity off by": None if block.degenerate else significant(block.identity_residual, 2),
        "gradient directions": significant(block.gradient_participation),
    }


def _spectrum(spectrum: BlockSpectrum) -> dict[str, Any]:
    from lazyneuron.report.numbers import ratio, share, significant

    found = spectrum.concentration
    return {
        "block": spectrum.name,
        "largest / smallest singular value": significant(found.singular_ratio),
        "80 % of eigenvalues within": ratio(found.mass_ratio),
        "zero share": share(found.zero_share),
        "participation": f"{significant(found.participation)} of {found.rank}",
        "distance from Marchenko-Pastur": share(spectrum.fit.distance),
    }
