"""``lazyneuron reproduce peng-regime-...``: run what is missing, then make the table of what the folder holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyneuron.core.environment import environment
from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import Experiment, Finding, Request, published
from lazyneuron.experiments.jobs import run_jobs
from lazyneuron.experiments.reproduce.peng.regime import plan, table
from lazyneuron.experiments.reproduce.peng.regime.case import Case, Job
from lazyneuron.experiments.reproduce.peng.regime.earlier import COMMIT, beside, what_stays
from lazyneuron.experiments.reproduce.peng.regime.text import read_bytes
from lazyneuron.experiments.reproduce.peng.regime.training import read_course, train
from lazyneuron.report import markdown_table, provenance

_SOURCE = "Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract"
_DIFFERS = (
    "Transformers of width 64 and 3 layers (2 and 2 with an encoder) in place of ViT-B/16 on ImageNet-1k and T5-base "
    "on C4, at a constant rate from the first step on, gradients not clipped: bytes of Python sources, each window "
    "once in an epoch, 1024 bytes a step; digits on a larger canvas, moved and disturbed anew each time. Numbers at a "
    "step are means of the three looks up to it, with a penalty, which leads the density, of the last. The published "
    "relative cut is read from an abstract that does not say which sparsity it means."
)
Cases = Callable[[Request], Sequence[Case]]


def _run(request: Request, cases: Cases) -> Finding:
    setting, compared = plan.setting_of(request), cases(request)
    for number, stage in enumerate(stages := plan.stages(compared, setting, request.seeds)):
        if not request.so_far:
            processes = None if request.device == "cpu" else 1
            run_jobs(train, stage, advance=_part(request, number, len(stages)), processes=processes)
    found = [[read_course(Job(case=c, setting=setting, seed=k)) for k in range(request.seeds)] for c in compared]
    if not any(course and course["looks"] for courses in found for course in courses):
        raise DataError(f"{setting.root} holds nothing of these trainings yet; run the same without --so-far.")
    both = table.comparisons(compared, found)
    looks = {c.name: [_kept(course, c) for course in each] for c, each in zip(compared, found, strict=True)}
    alike = [one for one in both if one.case.optimizer == compared[0].optimizer]
    curves = [curve for one in alike if (curve := one.curve(both[0]))]
    text = read_bytes(setting.root / "text")
    others = [one for one in both if not one.first]
    facts = {
        "learning_rate": setting.learning_rate,
        "weight_decay": setting.weight_decay,
        "seeds": request.seeds,
        "bytes": None if text is None else text.facts["bytes"],
        "epochs of text": None if text is None else _epochs(compared, setting.language, text.facts),
        "variants": {case.name: case.data() for case in compared},
        "runs": {
            "factors": [row for one in others for row in one.factor_rows()],
            "blocks": [row for one in others if (row := one.block_row())],
            "looks": looks,
        },
    }
    rows = [table.shown(one.row()) for one in both]
    mine = Finding(
        rows=rows,
        curves=curves,
        sentence=table.sentence(rows, table.unfinished(rows, request.seeds)),
        axes=("steps", "density on held-out data"),
        facts=facts,
    )
    return beside(mine, what_stays(request.begun, looks), environment())


def _epochs(cases: Sequence[Case], size: Any, facts: Mapping[str, Any]) -> float | None:
    steps = [case.steps for case in cases if case.kind != "vision"]
    return round(max(steps) * size.batch * size.length / facts["bytes"]["train"], 3) if steps else None


def _kept(course: Mapping[str, Any] | None, case: Case) -> list[dict[str, Any]]:
    """A course without what is known of single blocks, to four digits."""
    return [
        {
            k: float(f"{v:.4g}") if isinstance(v, float) else v
            for k, v in look.items()
            if k not in ("factors", "densities")
        }
        for look in (course or {"looks": []})["looks"]
        if look["step"] <= case.steps
    ]


def _part(request: Request, number: int, count: int) -> Callable[[float, str], None]:
    return lambda share, note: request.advance((number + share) / count, f"part {number + 1} of {count}: {note}")


def _factor_section(record: Record) -> str:
    """The factors of the identity and the density of each block, for the page about this regime."""
    data, runs = record.data, record.data["settings"]["runs"]
    if not runs["factors"]:
        return ""
    parts = [f"### {data['experiment']}", f"**{data['finding']}**", markdown_table(runs["factors"])]
    if "blocks" in runs:  # a record of before has none
        title = "Density of each block in the model's order, of what it is compared with and of this one:"
        parts += [title, markdown_table(_commit_last(runs["blocks"]))]
    earlier = [f"Rows of {commit}: {part['measured']}." for commit, part in runs.get("earlier", {}).items()]
    return "\n\n".join([*parts, provenance(record), *earlier]) + "\n\n"


def _commit_last(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of models with different numbers of blocks, with the same columns."""
    names = sorted(dict.fromkeys(name for row in rows for name in row), key=lambda name: name == COMMIT)
    return [{name: row.get(name) for name in names} for row in rows]


def _experiment(name: str, title: str, cases: Cases) -> Experiment:
    return published(
        name=f"peng-regime-{name}",
        title=f"{title}, on data that does not end",
        source=_SOURCE,
        differs=_DIFFERS,
        run=lambda request: _run(request, cases),
        sections={"docs/regime.md": _factor_section},
    )


def _decoder(request: Request) -> Sequence[Case]:
    return (*_both(request, "decoder", adafactor=True), *plan.small_tokens(plan.steps_of(request, plan.STEPS)))


def _both(request: Request, kind: Any, *, adafactor: bool) -> Sequence[Case]:
    steps = plan.steps_of(request, plan.STEPS)
    others = [case for case in plan.other_optimizer(steps) if case.kind == kind]
    return (*plan.ablation(kind, steps), *(others if adafactor else ()))


def _tuned(request: Request) -> Sequence[Case]:
    return plan.tuned(plan.steps_of(request, plan.STEPS))


EXPERIMENTS = (
    _experiment("language", "The modules in a decoder", _decoder),
    _experiment("t5", "The modules in an encoder-decoder", lambda request: _both(request, "spans", adafactor=True)),
    _experiment(
        "vision", "The modules in a vision transformer", lambda request: _both(request, "vision", adafactor=False)
    ),
    _experiment(
        "wide",
        "The modules in a decoder with fewer neurons than features",
        lambda request: plan.wide(plan.steps_of(request, plan.STEPS)),
    ),
    _experiment("finetune", "The modules in fine-tuning, LoRA included", _tuned),
    _experiment(
        "clipping",
        "The modules in a decoder with and without clipping, from four kinds of first weights",
        lambda request: plan.clipping(plan.steps_of(request, plan.CLIPPING_STEPS)),
    ),
    _experiment(
        "pressure",
        "The modules with a density-controlled penalty, in a decoder",
        lambda request: plan.pressed(plan.steps_of(request, plan.STEPS)),
    ),
    dataclasses.replace(
        _experiment(
            "long",
            "The modules in a decoder, for five times as long",
            lambda request: plan.longer(plan.steps_of(request, plan.LONG_STEPS)),
        ),
        seeds=1,
    ),
)
