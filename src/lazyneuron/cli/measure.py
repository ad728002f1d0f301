"""``lazyneuron measure``: how sparsely a model fires on some data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import AllowPickle, Batches, BatchSize, Data, JsonFile, Model

if TYPE_CHECKING:
    from lazyneuron.cli.model import LoadedModel
    from lazyneuron.measure import BlockSparsity, SparsityReport
    from lazyneuron.measure.forecast import Law

_TIMED_BATCHES = 2
_UNPREDICTED = (
    "No time is predicted, because this machine's cost model was not measured yet; "
    "`lazyneuron doctor --remeasure` measures it."
)


def measure(
    model: Model,
    *,
    data: Data,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Count activations of at most this magnitude as zero.")
    ] = None,
    forecast: Annotated[
        str | None,
        typer.Option("--forecast", help="Forecast densities from the inputs' moments too: gaussian or empirical."),
    ] = None,
    batches: Batches = None,
    batch_size: BatchSize = 16,
    json_file: JsonFile = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a self-contained page to this file.")] = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Count which neurons fire, block by block, without changing the model."""
    from lazyneuron.cli.inputs import load_inputs
    from lazyneuron.cli.output import check_writable, write_record
    from lazyneuron.core.record import write_text
    from lazyneuron.measure.forecast import check_law
    from lazyneuron.report import sparsity_page

    check_writable(json_file, html_file)
    law = check_law(forecast)
    loaded, items = load_inputs(model, data, batches=batches, batch_size=batch_size, allow_pickle=allow_pickle)
    report = _observe(loaded, items, threshold=threshold, forecast=law)
    _print(report)
    record = report.to_record(
        settings={"model": loaded.name, "data": str(data), "batch_size": batch_size},
        firing_counts=json_file is not None,
    )
    write_record(json_file, record)
    if html_file is not None:
        write_text(html_file, sparsity_page(record))


def _observe(loaded: LoadedModel, items: list[Any], *, threshold: float | None, forecast: Law | None) -> SparsityReport:
    from lazyneuron.accelerate.policy.predict import machine_cost
    from lazyneuron.blocks import find
    from lazyneuron.cli.screen import status, watched
    from lazyneuron.measure import measure as observe
    from lazyneuron.measure import mlp_time_share

    with status("Looking for MLP blocks"):
        found = find(loaded.model).or_raise()
    blocks = found.blocks
    cost = None if threshold is not None else machine_cost(blocks)
    report = observe(
        loaded.model, watched(items, "Measuring"), threshold=threshold, blocks=blocks, cost=cost, forecast=forecast
    )
    unpredicted = () if cost is not None or threshold is not None else (_UNPREDICTED,)
    with status("Timing the MLP blocks"):
        share = mlp_time_share(loaded.model, items[:_TIMED_BATCHES], blocks=blocks)
    notes = (*report.notes, *loaded.notes, *unpredicted)
    return dataclasses.replace(report, mlp_time_share=share, notes=notes, rejected=found.rejected)


def _print(report: SparsityReport) -> None:
    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.report.numbers import counted, ratio, share

    rows = [_row(b) for b in report.blocks]
    alike = {key: rows[0].pop(key) for key in ("kind", "neurons") if len({row[key] for row in rows}) == 1}
    rows = [{key: value for key, value in row.items() if key not in alike} for row in rows]
    rows += [{"block": r.name or "the model", "density": None} for r in report.rejected]
    print_table(None, rows)
    rule = "exact zeros" if report.threshold is None else f"activations of at most {report.threshold:g} count as zero"
    each = "".join(f", {value} {key if key == 'neurons' else ''}".rstrip() for key, value in alike.items())
    print_lines(
        f"{counted(len(report.blocks), 'block')}{each}, on {_tokens(report)}",
        f"density {share(report.density)} over all blocks ({rule})",
    )
    print_lines(*(b.forecast.against(b.name, b.density) for b in report.blocks if b.forecast is not None))
    if report.mlp_time_share is not None:
        limit = 1 / (1 - report.mlp_time_share) if report.mlp_time_share < 1 else float("inf")
        share_text = f"MLP blocks take {report.mlp_time_share:.2f} of a forward's time"
        print_lines(f"{share_text}, so the model gets at most {ratio(limit)} faster")
    of_blocks = (f"{b.name}: {note}" for b in report.blocks for note in b.notes)
    print_notes([*report.notes, *of_blocks, *map(str, report.rejected)])


def _tokens(report: SparsityReport) -> str:
    from lazyneuron.report.numbers import counted

    seen = sorted({b.tokens for b in report.blocks})
    return counted(seen[0], "token") if len(seen) == 1 else f"{seen[0]} to {seen[-1]} tokens a block"


def _row(block: BlockSparsity) -> dict[str, Any]:
    from lazyneuron.report.numbers import ratio, share

    return {
        "block": block.name,
        "kind": f"{block.activation}, gated" if block.gated else block.activation,
        "neurons": block.d_hidden,
        "density": share(block.density),
        "if ReLU": share(block.density_if_relu),
        "dead": len(block.dead),
        "always": len(block.always_on),
        "union 16": share(block.union_density(16)),
        "overlap": share(block.overlap),
        "byte ceiling": ratio(block.traffic[0].speedup_ceiling_from_bytes) if block.traffic else None,
        **{f"predicted at {p.tokens}": ratio(p.speedup) for p in block.predicted if p.tokens == 1},
    }
