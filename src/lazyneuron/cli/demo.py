"""``lazyneuron demo``: the main job on a real model and real text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lazyneuron.cli.options import Quick, Seed

if TYPE_CHECKING:
    from rich.console import Console

    from lazyneuron.core.record import Record

LANGUAGE_MODELS = (
    "Language models: `lazyneuron generate FOLDER --prompt TEXT --weights int4 --rest int4 --against dense` quantises "
    "one, and decodes with the neurons that fire and with all; `lazyneuron reproduce tiny-lm --quick` trains one."
)


def demo(
    *,
    quick: Quick = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for page, record and model.")] = Path("lazyneuron-demo"),
    data: Annotated[
        Path | None, typer.Option("--data", help="A file or folder of your own text, beside what the machine has.")
    ] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Keep for the training's backward only what fires.")] = False,
    seed: Seed = 0,
) -> None:
    """Make a pretrained sentence encoder run only the neurons that fire, and show what that is worth."""
    from rich.console import Console

    from lazyneuron.cli.screen import print_lines
    from lazyneuron.experiments.demo.output import PAGE, check_folder, removed_if_empty, write
    from lazyneuron.experiments.demo.pipeline import run_demo
    from lazyneuron.experiments.demo.settings import Settings

    settings = dataclasses.replace(Settings.quick_run(seed=seed) if quick else Settings(seed=seed), pack=pack)
    with removed_if_empty(out):
        check_folder(out)
        with _Bars(Console(stderr=True)) as bars:
            result = run_demo(settings, show=bars.show, data=data)
        write(result, out)
    _print(result.record)
    print_lines(f"Page: {out / PAGE}", LANGUAGE_MODELS)


class _Bars:
    """Draws one progress bar a stage."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.progress = Progress(*columns, console=console)
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, stage: str, share: float, note: str) -> None:
        """Fill the stage's bar; a new one when it begins."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=1.0, note="")
        self.progress.update(self.tasks[stage], completed=share, note=note)
        if share == 1 and not note:
            self.progress.stop_task(self.tasks[stage])


def _print(record: Record) -> None:
    from lazyneuron.cli.screen import print_lines, print_notes, print_table
    from lazyneuron.report.engine_rows import table
    from lazyneuron.report.numbers import significant

    data = record.data
    print_table("What fires", [_block(b) for b in data["blocks"]])
    print_table("Against the original, on held-out lines", [_state(p) for p in data["frontier"]])
    print_table("Median time of one forward", [_case(c) for c in data["latency"]])
    if data["engines"]:
        print_table("What one would have picked instead (* no other is as fast and as close)", table(data["engines"]))
    quality = data["quality"]
    print_lines(
        f"density {data['density']:.3f}, mean cosine {quality['mean_cosine']:.3f}, nearest neighbour the same for "
        f"{quality['top1_agreement']:.3f} of {quality['n_lines']} lines, rank correlation "
        f"{quality['rank_correlation']:.3f}",
        f"largest difference between dense and accelerated: {significant(data['max_abs_difference'])}",
    )
    print_notes(data["notes"])


def _block(block: dict[str, Any]) -> dict[str, Any]:
    from lazyneuron.report.numbers import share

    return {
        "block": block["name"],
        "density before": share(block["density_before"]),
        "under ReLU": share(block["would_be_relu"]),
        "density after": share(block["density_after"]),
        "computed": share(block["computed_share"]),
    }


def _state(point: dict[str, Any]) -> dict[str, Any]:
    from lazyneuron.report.numbers import share

    return {
        "state": point["label"],
        "density": share(point["density"]),
        "cosine": share(point["mean_cosine"]),
        "same neighbour": share(point["top1_agreement"]),
    }


def _case(case: dict[str, Any]) -> dict[str, Any]:
    from lazyneuron.report.numbers import ratio, share

    return {
        "lines x tokens": case["case"],
        **{row["variant"]: f"{row['median_ms']:.3g} ms" for row in case["rows"]},
        "faster": ratio(case["speedup"]),
        "MLP share": share(case["mlp_share"]),
        "ceiling": ratio(case["ceiling"]),
        "at this density": ratio(case["density_ceiling"]),
    }
