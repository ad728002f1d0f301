"""Damaging what is saved: ``python -m tests.core.damage [--files 1350]``.

A damaged file has to raise one of the library's errors, with nothing half changed, or to load what was saved. A
document that was changed and sealed anew may load as what it says now, and must raise no other error either.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lazyneuron as lazy
from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import CostModel
from lazyneuron.core.errors import LazyNeuronError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.core.record import Record
from lazyneuron.experiments.sweep.journal import Finished, Journal
from tests.accelerate.conftest import made_up
from tests.core.resealed import reseal
from tests.core.savers import SAVERS, Other, Saver

ABSURD = [None, -1, 0, 10**30, float("nan"), float("inf"), "", "x", [], {}, [[]], {"": None}, True, 1e300]


def _load_cost(folder: Path) -> int:
    model = costs.read(folder / "cost.json", "mark")
    if model != _cost():
        raise Other
    for firing in (0.0, 0.1, 0.5, 1.0):
        model.computed_share(firing)
    return 0


def _cost() -> CostModel:
    return dataclasses.replace(made_up(torch.float32), fingerprint="mark")


def _save_journal(folder: Path, _: int) -> None:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.jsonl", task="t")
    for k in range(4):
        journal.add(Finished(task="t", settings={"k": k}, density=0.5, quality=1.0, facts={"n": k}, seconds=1.0))


def _load_journal(folder: Path) -> int:
    journal = Journal(folder / "journal.jsonl", task="t")
    journal.add(Finished(task="t", settings={"k": 9}, density=0.5, quality=1.0))
    raise Other  # it has no checksum: any points may be in it


def _text(write: Callable[[], str], read: Callable[[str], Any]) -> Saver:
    def load(folder: Path) -> int:
        file = folder / "x.json"
        read(file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else "").to_json()
        raise Other  # it has no checksum

    def save(folder: Path, _: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "x.json").write_text(write())

    return Saver(save, load)


def _receipt() -> str:
    changes = (BlockChange(block="b", action="replaced", reason="r", details={"kept": [1, 2]}),)
    return lazy.Receipt(verb="sparsify_", config={"config": "Relufy"}, changes=changes).to_json()


SEALED = {
    **SAVERS,
    "cost model": Saver(lambda folder, _: costs.save(_cost(), folder / "cost.json"), _load_cost),
}
PLAIN = {
    "journal": Saver(_save_journal, _load_journal),
    "record": _text(lambda: Record(kind="k", data={"a": [1, 2.5]}, seed=0).to_json(), Record.from_json),
    "receipt": _text(_receipt, lazy.Receipt.from_json),
}


def damage(folder: Path, dice: random.Random) -> tuple[str, bool]:
    """Damage one file of a folder; in words, and whether checksums cannot tell."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    file = dice.choice(files)
    documents = [p for p in files if p.suffix == ".json"]
    kinds = ["flip", "flip", "flip", "cut", "empty", "gone", "more", "swap", "deep", "noise"]
    kind = dice.choice([*kinds, *(["json", "resealed", "resealed"] if documents else [])])
    data = bytearray(file.read_bytes())
    if kind == "flip":
        data[dice.randrange(len(data))] ^= dice.randrange(1, 256)
        file.write_bytes(data)
    elif kind == "cut":
        file.write_bytes(data[: dice.randrange(len(data))])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "gone":
        file.unlink()
    elif kind == "more":
        file.write_bytes(bytes(data) + dice.randbytes(dice.randrange(1, 50)))
    elif kind == "swap":
        other = dice.choice(files)
        content = other.read_bytes()
        other.write_bytes(data)
        file.write_bytes(content)
    elif kind == "deep":
        file.write_bytes(dice.choice([b"[", b'{"a":', b'{"format": 2, "sealed": [[', b"[{"]) * 100_000)
    elif kind == "noise":
        file.write_bytes(dice.randbytes(len(data)))
    elif kind == "json":
        file = documents[0]
        file.write_text(json.dumps(mangled(json.loads(file.read_text()), dice)))
    else:
        file = documents[0]
        sealed = "sealed" in json.loads(file.read_text())
        if sealed:
            reseal(file, lambda content: mangled(content, dice))
        else:
            file.write_text(json.dumps(mangled(json.loads(file.read_text()), dice)))
    return f"{kind} {file.name}", kind == "resealed"


def mangled(content: Any, dice: random.Random) -> Any:
    """JSON content with one value exchanged for an absurd one, left out, or nested too deeply."""
    content = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(content)
    if not places:
        return dice.choice(ABSURD)
    holder, key = dice.choice(places)
    if dice.random() < 0.2:
        del holder[key]
    elif dice.random() < 0.1:
        nested: Any = holder[key]
        for _ in range(900):  # as deep as Python's own limit lets JSON be written
            nested = [nested]
        holder[key] = nested
    else:
        holder[key] = copy.deepcopy(dice.choice(ABSURD))
    return content


def outcome(saver: Saver, folder: Path, *, resealed: bool) -> str:
    """How loading went: ``refused``, ``the same``, ``other`` where that is allowed, or a fault in words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "the same" if saver.load(folder) == 0 else "FAULT: another content"
    except LazyNeuronError as error:
        return "refused" if "\n" not in str(error).strip() else f"FAULT: {error!r} is no sentence"
    except Other as error:
        return "other" if resealed else f"FAULT: loads as {error}"
    except BaseException as error:
        return f"FAULT: {type(error).__name__}: {str(error)[:300]}"


def run(*, files: int, seed: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Damage so many files in turn; counts of what came of it, and every fault."""
    dice, counts, faults = random.Random(seed), collections.Counter[str](), []
    savers = {**SEALED, **PLAIN}
    with tempfile.TemporaryDirectory() as place:
        for name, saver in savers.items():
            saver.save(Path(place) / name, 0)
        for number in range(files):
            name = list(savers)[number % len(savers)]
            copied = Path(place) / "damaged"
            shutil.copytree(Path(place) / name, copied)
            what, resealed = damage(copied, dice)
            result = outcome(savers[name], copied, resealed=resealed or name in PLAIN)
            counts[result.partition(":")[0]] += 1
            if result.startswith("FAULT"):
                faults.append(f"{number} {name}, {what}: {result}")
            shutil.rmtree(copied)
    return counts, faults


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1350)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    counts, faults = run(files=options.files, seed=options.seed)
    print(*faults, sep="\n")
    print(f"{options.files} damaged files: {dict(counts)}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main(sys.argv[1:])
