"""Arguments and options that several commands take, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="A local Hugging Face directory, package.module:callable, or what sparsify saved.")
]
Data = Annotated[
    Path,
    typer.Option("--data", help='UTF-8 text, .jsonl with "text", .npy, .npz, .safetensors, or a folder of images.'),
]
Batches = Annotated[int | None, typer.Option("--batches", help="At most so many batches.", min=1)]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Examples a batch.", min=1)]
AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read pickled weights too: they can run any code their author put in them."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")]
ModelFolder = Annotated[Path | None, typer.Option("--out", help="Save the model and the receipt to this folder.")]
FigureFile = Annotated[Path | None, typer.Option("--figure", help="Draw the figure into this PNG file.")]
Seed = Annotated[int, typer.Option("--seed", help="Of every random choice.", min=0)]
Quick = Annotated[bool, typer.Option("--quick", help="A much smaller run, to see that it works.")]
