"""The model and the data that a command is given, loaded in one way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyneuron.cli.model import LoadedModel


def load_inputs(
    model: str,
    data: Path | None,
    *,
    batches: int | None,
    batch_size: int,
    allow_pickle: bool,
    out: Path | None = None,
) -> tuple[LoadedModel, list[Any]]:
    """Load what MODEL and ``--data`` name, and say so meanwhile.

    Args:
        model: as for :func:`lazyneuron.cli.model.load_model`.
        data: as for :func:`lazyneuron.cli.data.load_batches`; None gives no batches.
        batches: at most so many; None takes all.
        batch_size: examples a batch.
        allow_pickle: also read pickled weights.
        out: folder that the model is to be saved to; refused before the data are read.

    Raises:
        LazyNeuronError: what is named is not there, cannot be read, or does not fit.
    """
    from lazyneuron.cli.data import load_batches
    from lazyneuron.cli.model import load_model
    from lazyneuron.cli.saved import check_out
    from lazyneuron.cli.screen import status

    with status(f"Loading {model}"):
        loaded = load_model(model, allow_pickle=allow_pickle)
        check_out(loaded.folder, out)
        if data is None:
            return loaded, []
        return loaded, load_batches(data, loaded, batch_size=batch_size, batches=batches)
