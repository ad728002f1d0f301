"""Many cases, and what came of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from tests.accelerate.fuzz.case import make_case
from tests.accelerate.fuzz.judge import Fault, judge


@dataclasses.dataclass
class Tally:
    """Figures of a run, by path, and the failures with the numbers of their cases."""

    blocks: int = 0
    runs: Counter[str] = dataclasses.field(default_factory=Counter)
    pairs: Counter[str] = dataclasses.field(default_factory=Counter)
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    compared: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another run in."""
        self.blocks += other.blocks
        self.failures += other.failures
        for name in ("runs", "pairs", "skipped", "compared", "wrong"):
            getattr(self, name).update(getattr(other, name))

    def text(self, *, seed: int, seconds: float) -> str:
        """A table of the figures."""
        lines = [f"seed {seed}, {self.blocks} blocks, {seconds:.0f} s, {len(self.failures)} failures"]
        for path in sorted(self.runs):
            wrong = {fault: n for (where, fault), n in self.wrong.items() if where == path}
            lines.append(
                f"{path}: {self.runs[path]} runs, {self.compared[path]} tokens compared, "
                f"{self.pairs[path]} pairs, {self.skipped[path]} skipped, wrong: {wrong or 0}"
            )
        return "\n".join([*lines, *self.failures[:50]])


def run(seed: int, indices: Iterable[int], fault: Fault | None = None) -> Tally:
    """Judge the cases of these numbers."""
    tally = Tally()
    for index in indices:
        tally.blocks += 1
        case = make_case(seed, index)
        for verdict in judge(case, fault):
            tally.runs[verdict.path] += 1
            tally.pairs[verdict.path] += verdict.pairs
            tally.skipped[verdict.path] += verdict.skipped
            tally.compared[verdict.path] += verdict.compared
            for name, count in verdict.faults.items():
                tally.wrong[verdict.path, name] += count
                block = case.block
                tally.failures.append(
                    f"block {index}, {verdict.path}: {name}, {count} times "
                    f"({block.first.weight.dtype}, {block.activation}, gated {block.gate is not None}, "
                    f"flush {case.flush}, x {tuple(case.x.shape)} of strides {case.x.stride()})"
                )
    return tally
