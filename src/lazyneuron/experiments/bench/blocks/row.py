"""One row of the benchmark: all candidates of a case, judged and timed against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lazyneuron.core.timing import Ratios, Times, compared, ratios
from lazyneuron.experiments.bench.blocks.baselines.baseline import Built, Problem
from lazyneuron.experiments.bench.blocks.baselines.registry import BASELINES, DENSE
from lazyneuron.experiments.bench.blocks.candidate import LIMITS, Candidate, judge, judge_baseline, one_line
from lazyneuron.experiments.bench.blocks.case import Case
from lazyneuron.experiments.bench.blocks.ceilings import Needs, needs, plain_read
from lazyneuron.experiments.bench.blocks.certified import PATHS, Path, make_paths, usable_paths
from lazyneuron.experiments.bench.blocks.model import Accelerated, accelerated
from lazyneuron.experiments.bench.blocks.prepared import Prepared
from lazyneuron.experiments.bench.blocks.synthetic import SEED, make_inputs
from lazyneuron.experiments.bench.blocks.truth import evaluate
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

OURS = "ours"
NOISY = 2.0  # upper over lower quartile
_READ = "read"


def facts_of(case: Case) -> dict[str, Any]:
    """The columns that say which case a row is of."""
    return {
        "shape": str(case.shape),
        "dtype": case.dtype,
        "tokens": case.tokens,
        "density": case.density,
        "threads": case.threads,
    }


def refused(case: Case, error: BaseException) -> dict[str, Any]:
    """The row of a case that cannot be measured here."""
    return facts_of(case) | {"reason": one_line(error)}


def measure_case(case: Case, prepared: Prepared, *, budget_s: float) -> dict[str, Any]:
    """Judge and time a case.

    Args:
        case: the case.
        prepared: its weights.
        budget_s: for timing; slow cases take longer, seven rounds at least.

    Returns:
        A JSON-able row. A noisy one is measured once more: the second measurement is the row, the first is kept beside
        it whichever is better.
    """
    packed, inputs = prepared.packed_for(case), make_inputs(case)
    truth = evaluate(prepared.block, inputs[0])
    need = needs(packed, prepared.levels, inputs[0], truth[1])
    # as long as what is measured; accelerate_ looks at the first eight
    calibration = [prepared.calibration[k : k + case.tokens] for k in range(0, len(prepared.calibration), case.tokens)]
    with accelerated(prepared.block, calibration, tokens=case.tokens) as ours:
        candidates = _candidates(case, prepared, packed, ours, inputs, truth, need)
        return _row(case, prepared, packed, ours, candidates, inputs, need, budget_s=budget_s)


def _row(
    case: Case,
    prepared: Prepared,
    packed: PackedBlock,
    ours: Accelerated,
    candidates: list[Candidate],
    inputs: list[Tensor],
    need: Needs,
    *,
    budget_s: float,
) -> dict[str, Any]:
    row = facts_of(case) | {"ours": ours.chosen, "computed": round(need.computed, 4), "fired": round(need.fired, 4)}
    row |= {"union": round(need.union, 4), "read_bytes": need.bytes, "gemm_gflops": round(prepared.gflops, 1)}
    if ours.notes:
        row["notes"] = list(ours.notes)
    wrong = [c for c in candidates if c.run is None and c.error is not None and c.name in (OURS, *usable_paths())]
    if wrong:
        return row | {"reason": f"{wrong[0].name}: {wrong[0].reason}", "candidates": [c.to_row() for c in candidates]}
    read, read_bytes = plain_read(packed, need.bytes)
    calls = {c.name: c.run for c in candidates if c.run is not None} | {_READ: read}
    together, apart = [name for name in (*PATHS, _READ, OURS) if name in calls], (OURS, _READ)
    times = compared(calls, inputs, budget_s=budget_s, seed=SEED, shares_memory=together, apart=apart)
    spread = _spread(times)
    if spread > NOISY:
        row |= {"noisy": True, "first": _headline(times) | {"spread": round(spread, 2)}}
        times = compared(calls, inputs, budget_s=budget_s, seed=SEED + 1, shares_memory=together, apart=apart)
    if ours.now() != ours.chosen:
        row["ours_at_the_end"] = ours.now()
    return row | _measured(ours.chosen, candidates, times, need, read_bytes=read_bytes, gflops=prepared.gflops)


def _candidates(
    case: Case,
    prepared: Prepared,
    packed: PackedBlock,
    ours: Accelerated,
    inputs: list[Tensor],
    truth: tuple[Tensor, Tensor],
    need: Needs,
) -> list[Candidate]:
    """Dense, the paths by themselves, the accelerated model, and the baselines."""
    x, limit = inputs[0], LIMITS[case.dtype]
    usable = usable_paths()
    paths = make_paths(packed, [name for name, reason in usable.items() if reason is None])
    found = [judge(DENSE.name, DENSE.build(_problem(prepared, inputs, 1.0)), x=x, truth=truth, limit=limit, exact=True)]
    for name, reason in usable.items():
        if reason is None:
            built = _certified(paths[name], packed)
            found.append(judge(name, built, x=x, truth=truth, limit=limit, exact=True))
        else:
            found.append(Candidate(name=name, reason=reason))
    built = Built(run=ours.run, added_bytes=ours.added_bytes, note=ours.chosen)
    found.append(judge(OURS, built, x=x, truth=truth, limit=limit, exact=True))
    names = [name for name in case.against if name not in paths]
    problem = _problem(prepared, inputs, _byte_share(prepared, packed) if "teal" in names else 1.0)
    found += [judge_baseline(BASELINES[name], problem, x=x, truth=truth, limit=limit) for name in names]
    return [_with_missed(c, need) for c in found]


def _problem(prepared: Prepared, inputs: list[Tensor], byte_share: float) -> Problem:
    return Problem(block=prepared.block, calibration=prepared.calibration, inputs=inputs, byte_share=byte_share)


def _certified(path: Path, packed: PackedBlock) -> Built:
    return Built(run=path.run, added_bytes=packed.added_bytes)


def _with_missed(candidate: Candidate, need: Needs) -> Candidate:
    """A certified path leaves out what its certificate does not leave open."""
    if candidate.name not in (OURS, *PATHS) or candidate.error is None:
        return candidate
    return dataclasses.replace(candidate, missed=need.missed)


def _byte_share(prepared: Prepared, packed: PackedBlock) -> float:
    """Bytes that a certified step reads at one token over those of the dense block, on a calibration token."""
    tokens = prepared.calibration[:16]
    _, fires = evaluate(prepared.block, tokens)
    single = [needs(packed, prepared.levels, tokens[k : k + 1], fires[k : k + 1]).bytes for k in range(len(tokens))]
    dense_bytes = sum(s.weight.numel() * s.weight.element_size() for s in prepared.block.linears)
    return sum(single) / len(single) / dense_bytes


def _spread(times: Mapping[str, Times]) -> float:
    return max(times[name].spread for name in (DENSE.name, OURS, "int8") if name in times)


def _headline(times: Mapping[str, Times]) -> dict[str, Any]:
    """Speeds of one measurement."""
    against = ratios(times[DENSE.name], times[OURS])
    found = {
        "dense_us": round(times[DENSE.name].median_us, 1),
        "ours_us": round(times[OURS].median_us, 1),
        **_vs_dense(against),
    }
    if "int8" in times:
        over_int8 = ratios(times["int8"], times[OURS])
        found |= {"int8_us": round(times["int8"].median_us, 1), "vs_int8": round(over_int8.median, 3)}
    return found


def _vs_dense(against: Ratios) -> dict[str, Any]:
    return {
        "vs_dense": round(against.median, 3),
        "vs_dense_quartiles": [round(quartile, 3) for quartile in against.quartiles],
    }


def _measured(
    chosen: str,
    candidates: list[Candidate],
    times: Mapping[str, Times],
    need: Needs,
    *,
    read_bytes: int,
    gflops: float,
) -> dict[str, Any]:
    gbps = read_bytes / times[_READ].median_us / 1e3
    by_bytes, by_flops = need.bytes / gbps / 1e3, need.flops / gflops / 1e3
    ours = next(c for c in candidates if c.name == OURS)
    spread = _spread(times)
    return _headline(times) | {
        "byte_ceiling_us": round(by_bytes, 1),
        "flop_ceiling_us": round(by_flops, 1),
        "over_ceiling": None if chosen == "dense" else round(times[OURS].median_us / max(by_bytes, by_flops), 3),
        "read_gbps": round(gbps, 1),
        "error": ours.error,
        "missed": ours.missed,
        "added_bytes": ours.added_bytes,
        "rounds": len(times[OURS].samples_us),
        "spread": round(spread, 2),
        **({"noisy_again": True} if spread > NOISY else {}),
        "raw_ratios": sorted(round(r, 3) for r in ratios(times[DENSE.name], times[OURS]).samples),
        "candidates": [_candidate_row(c, times) for c in candidates],
    }


def _candidate_row(candidate: Candidate, times: Mapping[str, Times]) -> dict[str, Any]:
    row = candidate.to_row()
    if candidate.name not in times:
        return row
    taken = times[candidate.name]
    return row | {
        "median_us": round(taken.median_us, 1),
        "quartiles_us": [round(q, 1) for q in taken.quartiles_us],
        **_vs_dense(ratios(times[DENSE.name], taken)),
    }
