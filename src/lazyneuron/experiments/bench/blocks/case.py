"""One case of the benchmark: which block, how many tokens, how sparse, on how many threads, against whom."""

from __future__ import annotations

import dataclasses
import re

import torch

from lazyneuron.core.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_TOKENS = 65536
_SHAPE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,6})(:gated)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Widths of a block.

    Attributes:
        d: width of input and output.
        hidden: number of neurons.
        gated: whether it has a gate.
    """

    d: int
    hidden: int
    gated: bool = False

    @property
    def weights(self) -> int:
        """Parameters of its matrices."""
        return self.d * self.hidden * (3 if self.gated else 2)

    def __str__(self) -> str:
        return f"{self.d} x {self.hidden}" + (" gated" if self.gated else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the record.

    Attributes:
        shape: of the block.
        dtype: a key of :data:`DTYPES`.
        tokens: processed together.
        density: share of neurons that fire on one token, in (0, 1].
        threads: of torch.
        against: names of the baselines beside dense.
    """

    shape: Shape
    dtype: str
    tokens: int
    density: float
    threads: int
    against: tuple[str, ...] = ("int8",)

    @property
    def weights_key(self) -> tuple[object, ...]:
        """Equal for cases that are measured with the same weights."""
        return self.threads, self.shape, self.dtype


def parse_shape(text: str) -> Shape:
    """The shape that ``1024x4096`` or ``2048x8192:gated`` names.

    Raises:
        ConfigError: the text is something else.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ConfigError(f"A shape is written 1024x4096, or 2048x8192:gated with a gate; got {text!r}.")
    return Shape(d=int(match[1]), hidden=int(match[2]), gated=match[3] is not None)
