"""All engines on one encoder: what they answer, and how long they take, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.timing import quartiles, timed
from lazyneuron.experiments.bench.generation.peers.peer import Peer
from lazyneuron.experiments.demo.cases import Case
from lazyneuron.experiments.demo.encoder import by_length, embed
from lazyneuron.experiments.demo.quality import quality
from lazyneuron.experiments.engines.engine import ENGINES, Engine, wanted

Row = dict[str, Any]
Turn = Callable[[int], list[float]]
_PAUSE_S = 0.05  # threads that wait for more work have gone to sleep by then
_GROUP_TOKENS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own:
    """A model that runs in this process.

    Attributes:
        model: what is called.
        needs: what a user has to do for it.
        ours: whether it is sparse execution.
    """

    model: nn.Module
    needs: str
    ours: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: turns of every engine on every case.
        runs: counted runs in a turn, after one that is not.
    """

    rounds: int = 7
    runs: int = 3


def beside(
    original: nn.Module,
    own: Mapping[str, Own],
    *,
    cases: Sequence[Case],
    held_out: Sequence[Sequence[int]],
    calibration: Sequence[Sequence[int]],
    python: Path | None = None,
    effort: Effort = Effort(),  # frozen
    engines: Sequence[Engine] = ENGINES,
    advance: Callable[[float, str], None] = lambda share, note: None,
) -> list[Row]:
    """Run an encoder in every engine, and models of ours beside them.

    Args:
        original: a Hugging Face encoder; the other engines run it, and agreement is with its embeddings.
        own: models in this process by name.
        cases: the inputs to time.
        held_out: token ids of the lines on which agreement is measured.
        calibration: token ids that quantisation may look at.
        python: the interpreter with the other engines' packages; None takes this one.
        effort: how much is measured.
        engines: the others.
        advance: told the share that is done, and what is going on.

    Returns:
        A row for each, ours first: ``engine``, ``needs``, ``ours``, ``quality`` and ``times`` by case; one that cannot
        run has a ``note`` with the reason instead.
    """
    reference = embed(original, held_out)
    rows = {n: _row(n, o.needs, o.ours) | _agreement(embed(o.model, held_out), reference) for n, o in own.items()}
    with _peers(original, cases, held_out, calibration, python=python, engines=engines, advance=advance) as begun:
        turns: dict[str, Callable[[Case], Turn]] = {n: _own_turn(o.model, effort) for n, o in own.items()}
        for engine, peer in begun:
            rows[engine.name] = _row(engine.name, engine.needs, engine.exported is not None)
            try:
                if isinstance(peer, str):
                    raise ImplUnavailable(peer)
                rows[engine.name] |= {"facts": peer.facts} | _agreement(_embedded(peer, held_out), reference)
                turns[engine.name] = _peer_turn(peer, effort)
            except ImplUnavailable as error:
                rows[engine.name]["note"] = f"does not run: {error}"
        for number, case in enumerate(cases):
            advance(0.5 + 0.5 * number / len(cases), case.name)
            taken = _in_turns({name: turn(case) for name, turn in turns.items()}, rounds=effort.rounds)
            for name, samples in taken.items():
                low, high = quartiles(samples)
                times = {"median_ms": statistics.median(samples), "low_ms": low, "high_ms": high, "n": len(samples)}
                rows[name]["times"][case.name] = times
        for engine, peer in begun:
            if isinstance(peer, Peer):
                rows[engine.name]["idle"] = peer.idle
    return list(rows.values())


def _row(name: str, needs: str, ours: bool) -> Row:
    return {"engine": name, "needs": needs, "ours": ours, "times": {}}


def _agreement(embeddings: Tensor, reference: Tensor) -> Row:
    return {"quality": dataclasses.asdict(quality(embeddings, reference))}


@contextlib.contextmanager
def _peers(
    original: nn.Module,
    cases: Sequence[Case],
    held_out: Sequence[Sequence[int]],
    calibration: Sequence[Sequence[int]],
    *,
    python: Path | None,
    engines: Sequence[Engine],
    advance: Callable[[float, str], None],
) -> Iterator[list[tuple[Engine, Peer | str]]]:
    """The processes with their models loaded, or why one does not run."""
    with tempfile.TemporaryDirectory(prefix="lazyneuron-engines-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        _save(original, folder / "model")
        inputs = folder / "inputs.json"
        inputs.write_text(json.dumps(_inputs(cases, held_out, calibration)), encoding="utf-8")
        begun: list[tuple[Engine, Peer | str]] = []
        for number, engine in enumerate(engines):
            advance(0.5 * number / len(engines), engine.name)
            made = wanted(engine, model=folder / "model", folder=folder, inputs=inputs, threads=torch.get_num_threads())
            try:
                begun.append((engine, stack.enter_context(Peer(engine.file, python=python, wanted=made))))
            except ImplUnavailable as error:
                begun.append((engine, str(error)))
        yield begun


def _save(model: nn.Module, folder: Path) -> None:
    """A Hugging Face model into a folder, without a progress bar."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(folder)  # type: ignore[operator]
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _inputs(
    cases: Sequence[Case], held_out: Sequence[Sequence[int]], calibration: Sequence[Sequence[int]]
) -> dict[str, Any]:
    timed_on = {case.name: [batch["input_ids"].tolist() for batch in case.batches] for case in cases}
    groups = [[list(held_out[i]) for i in group] for group in by_length(held_out, tokens=_GROUP_TOKENS)]
    return {"cases": timed_on, "held_out": groups, "calibration": [list(ids) for ids in calibration]}


def _embedded(peer: Peer, held_out: Sequence[Sequence[int]]) -> Tensor:
    """The embeddings that an engine writes to a file, in the order of the lines."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="lazyneuron-engines-") as folder:
        path = Path(folder) / "embeddings.npy"
        peer.call("embed", str(path))
        rows = torch.from_numpy(np.load(path, allow_pickle=False))
    found = torch.empty_like(rows)
    found[[i for group in by_length(held_out, tokens=_GROUP_TOKENS) for i in group]] = rows
    return found


def _own_turn(model: nn.Module, effort: Effort) -> Callable[[Case], Turn]:
    def turn(case: Case, number: int) -> list[float]:
        batches = case.batches
        with torch.inference_mode():
            taken = [
                timed(lambda batch: call_model(model, batch), batches[(number * effort.runs + run) % len(batches)])[1]
                for run in range(effort.runs + 1)
            ]
        return [us / 1e3 for us in taken[1:]]

    return lambda case: lambda number: turn(case, number)


def _peer_turn(peer: Peer, effort: Effort) -> Callable[[Case], Turn]:
    return lambda case: lambda number: peer.call("time", case.name, number, effort.runs)


def _in_turns(turns: Mapping[str, Turn], *, rounds: int) -> dict[str, list[float]]:
    """Every engine once a round, each round from another one on; the first two rounds, which warm up, do not count."""
    samples: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(-2, rounds):
        start = number % max(len(names), 1)
        for name in names[start:] + names[:start]:
            time.sleep(_PAUSE_S)
            taken = turns[name](max(number, 0))
            if number >= 0:
                samples[name] += taken
    return samples
