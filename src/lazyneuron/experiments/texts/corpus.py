"""Lines of many kinds, on two sides: to train on, and held out."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.corpus import is_held_out
from lazyneuron.experiments.texts.kinds import KINDS, OWN, Files, own

_SHORTEST, _LONGEST, _FROM_A_FILE = 16, 400, 400
_LETTERS = re.compile(r"[^\W\d_]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Lines by kind; no file and no line is on both sides.

    Attributes:
        train: kind -> lines, in an order that only the names of their files decide.
        held_out: the same.
    """

    train: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]

    def sample(self, part: str, count: int, *, seed: int) -> list[str]:
        """``count`` lines of one part, evenly from its kinds; what a kind lacks the others give.

        Args:
            part: ``"train"`` or ``"held_out"``.
            count: how many; fewer come back when the part has not enough.
            seed: of the draw.
        """
        source: Mapping[str, tuple[str, ...]] = getattr(self, part)
        generator = random.Random(seed)
        left, drawn = count, []
        for number, kind in enumerate(sorted(source, key=lambda kind: len(source[kind]))):
            share = -(-left // (len(source) - number))
            lines = source[kind]
            drawn += generator.sample(lines, min(share, len(lines)))
            left = count - len(drawn)
        generator.shuffle(drawn)
        return drawn[:count]


def read_texts(
    *,
    most: int = 60_000,
    data: Path | None = None,
    kinds: Mapping[str, Callable[[], Files]] = KINDS,
    advance: Callable[[float, str], None] = lambda share, note: None,
) -> Texts:
    """Collect the text of this machine.

    Files are read in the order of a hash of their names, and of one file at most 400 lines are taken, so that no long
    file fills a kind.

    Args:
        most: training lines a kind; an eighth as many are held out.
        data: a file or folder of the user's own, a kind of its own.
        kinds: where to look; a kind of which the machine has nothing is left out.
        advance: told the share that is done, and the kind.

    Returns:
        Each distinct line once; a line that is found on both sides is kept for training only.

    Raises:
        DataError: there is no text on both sides.
    """
    sources = {**kinds, **({} if data is None else {OWN: own(data)})}
    train: dict[str, tuple[str, ...]] = {}
    candidates: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for number, (kind, files) in enumerate(sources.items()):
        advance(number / len(sources), kind)
        sides: dict[bool, dict[str, None]] = {False: {}, True: {}}
        limits = {False: most, True: max(1, most // 8)}
        for file in sorted(files(), key=lambda file: hashlib.sha256(file.name.encode()).digest()):
            held = is_held_out(file.name if file.group is None else file.group)
            if len(sides[held]) < limits[held]:
                sides[held].update(dict.fromkeys(_distinct(file.read(), set() if held else seen)))
            elif len(sides[not held]) >= limits[not held]:
                break
        train[kind], candidates[kind] = tuple(sides[False])[:most], tuple(sides[True])[: limits[True]]
        seen.update(train[kind])
    held_out = {kind: tuple(line for line in lines if line not in seen) for kind, lines in candidates.items()}
    found = [kind for kind in sources if train[kind] and held_out[kind]]
    if data is not None and OWN not in found:
        raise DataError(f"{data} has too little text for training and held-out files; name a folder with more of it.")
    if not found:
        raise DataError("Found no text of any kind on this machine; pass a folder of your own.")
    return Texts(train={k: train[k] for k in found}, held_out={k: held_out[k] for k in found})


def _distinct(texts: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Cleaned lines that are new, up to the most that one file may give."""
    taken = 0
    for text in texts:
        line = " ".join(text.split())
        if not (len(line) >= _SHORTEST and len(_LETTERS.findall(line[:_LONGEST])) >= len(line[:_LONGEST]) / 3):
            continue
        line = line[:_LONGEST]
        if line in seen:
            continue
        yield line
        taken += 1
        if taken == _FROM_A_FILE:
            return
