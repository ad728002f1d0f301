"""All engines of a case in turns, and the rows that come of it."""

from __future__ import annotations

import dataclasses
import gc
import statistics
from pathlib import Path
from typing import Any

import torch

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.core.timing import quartiles
from lazyneuron.experiments.bench.correct import refuse_wrong
from lazyneuron.experiments.bench.generation import cases as names
from lazyneuron.experiments.bench.generation.cases import Case, goal_for, most_ms
from lazyneuron.experiments.bench.generation.engines import Ours, same_as_dense
from lazyneuron.experiments.bench.generation.peers.peer import Peer, begin
from lazyneuron.experiments.bench.generation.reading import Reading
from lazyneuron.experiments.bench.generation.shapes import NARROW
from lazyneuron.experiments.bench.generation.turns import Turn, Turns, in_turns

Row = dict[str, Any]
PROMPT = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: each with a turn of every engine.
        tokens: decoded in a turn.
        prompt: tokens of the prompt whose time is taken.
        prefills: rounds of that.
    """

    rounds: int
    tokens: int
    prompt: int
    prefills: int


FULL = Effort(rounds=7, tokens=20, prompt=256, prefills=4)
QUICK = Effort(rounds=3, tokens=12, prompt=256, prefills=3)


def measure(case: Case, *, effort: Effort, python: Path | None, folder: Path, reading: Reading) -> list[Row]:
    """The rows of a case; an engine that cannot run is a row with the reason.

    Args:
        case: what to measure.
        effort: how much.
        python: the interpreter with the other engines' packages.
        folder: where these keep their models.
        reading: of this machine.
    """
    threads = torch.get_num_threads()
    ours = Ours(case)
    ids = ours.prompt(PROMPT)["input_ids"]
    refuse_wrong(f"{case.name}, sparse,", case.weights == "keep" or same_as_dense(ours.model, ids))
    refuse_wrong(f"The text of {case.name}", ours.is_right())
    peer, missing = None, None
    if case.peer is not None:
        try:
            peer = begin(case.peer, case.shape, python=python, threads=threads, folder=folder)
        except ImplUnavailable as error:
            missing = str(error)
    try:
        rows = _rows(case, ours, peer, effort=effort, reading=reading)
    finally:
        if peer is not None:
            peer.close()
        torch.compiler.reset()
        gc.collect()
    if missing is not None:
        rows.append(_facts(case) | {"part": names.ONE, "engine": case.peer, "note": f"does not run: {missing}"})
    return rows


def _facts(case: Case) -> Row:
    facts = {"case": case.name, "shape": case.shape.name}
    return facts | {"weights": case.weights, "rest": case.rest, "density": case.density}


def _rows(case: Case, ours: Ours, peer: Peer | None, *, effort: Effort, reading: Reading) -> list[Row]:
    plain = case.weights == case.rest == "keep"
    if case.shape is NARROW:
        return _outside(case, ours, effort=effort, reading=reading)
    one = ours.prompt(PROMPT)
    decode: dict[str, Turn] = {names.EAGER if plain else names.OURS: lambda _: ours.decode(one, effort.tokens)}
    if not plain:
        decode[names.EVERY] = lambda _: ours.decode(one, effort.tokens, dense=True)
    whole = ours.prompt(effort.prompt)
    prefill: dict[str, Turn] = {names.EAGER if plain else names.OURS: lambda _: ours.prefill(whole)}
    if not plain:
        prefill[names.EVERY] = lambda _: ours.prefill(whole, dense=True)
    others: tuple[str, ...] = ()
    if peer is not None and case.peer is not None:
        tokens = {n: inputs["input_ids"][0].tolist() for n, inputs in (("one", one), ("whole", whole))}
        decode[case.peer] = lambda _: peer.decode(tokens["one"], effort.tokens)
        prefill[case.peer] = lambda _: peer.prefill(tokens["whole"])
        others = (case.peer,)
    found = in_turns(decode, rounds=effort.rounds, read=reading.gbps, others=others)
    rows = _of_part(case, ours, found, part=names.ONE, peer=peer, tokens=1)
    found = in_turns(prefill, rounds=effort.prefills, read=reading.gbps, others=others)
    rows += _of_part(case, ours, found, part=names.PREFILL, peer=peer, tokens=effort.prompt)
    if case.weights == "int8" and not plain:
        four = ours.prompt(PROMPT, sequences=4)
        batch: dict[str, Turn] = {
            names.OURS: lambda _: ours.decode(four, effort.tokens),
            names.EVERY: lambda _: ours.decode(four, effort.tokens, dense=True),
        }
        found = in_turns(batch, rounds=effort.prefills, read=reading.gbps, others=())
        rows += _of_part(case, ours, found, part=names.FOUR, peer=None, tokens=4)
    if case.compiled:
        rows += _beside_compiled(case, ours, effort=effort, reading=reading)
    return rows


def _beside_compiled(case: Case, ours: Ours, *, effort: Effort, reading: Reading) -> list[Row]:
    """The compiled model beside itself, after all else, because compiling changes what comes after it."""
    one = ours.prompt(PROMPT)
    turns: dict[str, Turn] = {
        names.OURS: lambda _: ours.decode(one, effort.tokens),
        names.COMPILED: lambda _: _compiled(ours, one, effort.tokens),
    }
    try:
        found = in_turns(turns, rounds=effort.prefills, read=reading.gbps, others=())
    except Exception as error:  # compilers raise anything; what was measured before stays
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return [_facts(case) | {"part": names.ONE, "engine": names.COMPILED, "note": f"does not compile: {reason}"}]
    rows = _of_part(case, ours, found, part=names.ONE, peer=None, tokens=1)
    return [row for row in rows if row["engine"] == names.COMPILED]


def _compiled(ours: Ours, inputs: dict[str, torch.Tensor], tokens: int) -> list[float]:
    with ours.compiled():
        return ours.decode(inputs, tokens)


def _of_part(case: Case, ours: Ours, found: Turns, *, part: str, peer: Peer | None, tokens: int) -> list[Row]:
    gbps = statistics.median(found.gbps)
    rows = []
    for engine in found.samples_ms:
        ms = found.median_ms(engine)
        row = _facts(case) | {
            "part": part,
            "engine": engine,
            "tokens_per_s": tokens * 1e3 / ms,
            "ms": ms,
            "read_gbps": gbps,
            "samples_ms": [[round(one, 3) for one in turn] for turn in found.samples_ms[engine]],
        }
        is_peer = peer is not None and engine == case.peer
        if engine in (names.OURS, names.COMPILED):
            row["computed"] = ours.computed
        if part == names.ONE:
            needed = (
                peer.facts["bytes_a_token"] if is_peer and peer else ours.bytes_a_token(dense=engine == names.EVERY)
            )
            row |= {"bytes_a_token": needed, "ceiling_tokens_per_s": gbps * 1e9 / needed}
        if is_peer and peer is not None:
            row |= {"facts": peer.facts, "idle": peer.idle, "own_idle": found.own_idle}
        else:
            row["model_bytes"] = ours.model_bytes()
        rows.append(row | _against(case, found, part=part, engine=engine))
    return rows


def _against(case: Case, found: Turns, *, part: str, engine: str) -> Row:
    """Ratios over all other engines of the part, and the goal."""
    others = [other for other in found.samples_ms if other != engine]
    over: dict[str, Row] = {}
    for other in others:
        ratios = found.ratios(engine, other)
        over[other] = {"median": statistics.median(ratios), "quartiles": list(quartiles(ratios))}
    row: Row = {"over": over}
    goal = goal_for(case, part, engine)
    if goal is not None:
        beside = case.peer if goal.over == "peer" else goal.over
        ratio = over[beside]["median"] if beside in over else None
        reached = None if ratio is None else ratio >= goal.at_least
        row |= {"goal": goal.at_least, "goal_over": beside, "ratio": ratio, "reached": reached}
    return row


def _outside(case: Case, ours: Ours, *, effort: Effort, reading: Reading) -> list[Row]:
    """A model so narrow that a token's time is calls: of Python, of torch, of transformers and of our operators."""
    inputs = ours.prompt(PROMPT)
    eager = names.EAGER if case.rest == "keep" else names.OURS
    turns: dict[str, Turn] = {
        eager: lambda _: ours.decode(inputs, effort.tokens),
        f"{eager}, the model's call alone": lambda _: ours.forward_ms(inputs, effort.tokens),
    }
    if case.compiled:
        turns[names.COMPILED] = lambda _: _compiled(ours, inputs, effort.tokens)
    found = in_turns(turns, rounds=effort.rounds, read=reading.gbps, others=())
    rows = []
    for engine in turns:
        ms = found.median_ms(engine)
        row: Row = _facts(case) | {"part": names.CALLS, "engine": engine, "ms": ms}
        row["samples_ms"] = [[round(one, 3) for one in turn] for turn in found.samples_ms[engine]]
        most = most_ms(case)
        if most is not None:
            row |= {"most_ms": most, "reached": ms <= most}
        rows.append(row)
    return rows
