"""The head of a language model while only its largest logits are wanted."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate.execution.freshness import Freshness
from lazyneuron.accelerate.head.agreement import room_for, rows_agree
from lazyneuron.accelerate.head.request import current, decide, requested, why_all
from lazyneuron.accelerate.machine import products
from lazyneuron.accelerate.slack.certificate import build_sketch
from lazyneuron.blocks.block import LinearSite
from lazyneuron.blocks.splice.override import Override
from lazyneuron.core.errors import AssumptionError
from lazyneuron.core.memory import advise_large_pages
from lazyneuron.ops.candidates.operators import candidates
from lazyneuron.ops.sparse_mlp.sketch import Sketch

CERTIFIED = "certified"
MOST_TOKENS = 8  # of one call; more are a prompt, whose products are bound by arithmetic
MOST_SHARE = 1 / 8  # of the entries that may be candidates before all are computed
LONGEST_PAUSE = 64  # calls
REPACK_AFTER = 256  # calls with all logits after the weights changed: what they cost pays for another sketch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """The sketch of a head's weight, and that weight's freshness, which was taken before."""

    sketch: Sketch
    freshness: Freshness


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sites:
    """The linear layers whose weights are watched."""

    linears: tuple[LinearSite, ...]


def pack(site: LinearSite) -> Packed:
    """Sketch a head.

    Raises:
        AssumptionError: its weights are not finite.
    """
    freshness = Freshness(Sites(linears=(site,)))
    sketch = build_sketch(site.weight.detach(), None)
    advise_large_pages(sketch.panels)
    return Packed(sketch=sketch, freshness=freshness)


class CertifiedHead(Override):
    """Stands for the ``forward`` of a head: all logits, or the largest ones among minus infinity.

    A part is given only within a call of ``generate`` that said how many of the largest count. All that is not provably
    smaller than these is computed by torch's own product, so its bits are those of the whole product.

    Args:
        site: the head, a linear layer without bias.
        packed: its sketch; None to make it at the first use.

    Attributes:
        most_k: the largest k for which a part pays; None for no limit.
        ran: how often a part was given (``"certified"``), and how often all, by reason.
        tokens: for which a part was given.
        computed: entries that were computed for them.
        last: what the last call within ``generate`` did, or why it gave all logits.
    """

    def __init__(self, site: LinearSite, packed: Packed | None = None) -> None:
        self.module = site.module
        self.site = site
        self.most_k: int | None = None
        self.ran: Counter[str] = Counter()
        self.tokens = self.computed = 0
        self.last = "not called yet"
        self._packed = packed
        self._wait = 0  # calls until the weights are packed anew
        self._pause, self._paused = 0, 0
        self._agreed: dict[tuple[object, ...], bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}

    @property
    def added_bytes(self) -> int:
        """Memory of the sketch, now."""
        return 0 if self._packed is None else self._packed.sketch.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """The logits (..., entries) of hidden states (..., d_in)."""
        if not torch.compiler.is_compiling():
            request = current(self)
            if request is not None:
                y = request.why if request.k is None else self.largest(x, request.k)
                if isinstance(y, Tensor):
                    self.last = CERTIFIED
                    self.ran[CERTIFIED] += 1
                    return y
                self.last = y
                self.ran[y] += 1
        whole: Tensor = type(self.module).forward(self.module, x)
        return whole

    @torch.no_grad()
    def largest(self, x: Tensor, k: int) -> Tensor | str:
        """Logits of which all that may be among the k largest of their token are right, and the others minus infinity.

        Returns:
            (..., entries), or why all logits have to be computed.
        """
        why = self._why_not(x)
        if why is not None:
            return why
        packed = self._current()
        if isinstance(packed, str):
            return packed
        weight, entries = self.site.weight, packed.sketch.d_hidden
        if self._paused > 0:
            self._paused -= 1
            return "Too many candidates a short while ago."
        if k > (entries * MOST_SHARE if self.most_k is None else self.most_k):
            return f"The {k} largest of {entries} are wanted, which is no faster than all."
        rows = candidates(x, packed.sketch, k).nonzero()[:, 0]
        count = len(rows)
        if count > entries * MOST_SHARE:
            self._pause = self._paused = min(LONGEST_PAUSE, max(1, 2 * self._pause))
            return "Too many candidates."
        self._pause = 0
        room = room_for(count)
        if not self._agrees(weight, x, room):
            return "torch sums a row's product in another order beside few rows than beside all."
        index = rows.new_zeros(room)
        index[:count] = rows
        few = F.linear(x, weight.index_select(0, index))
        y = x.new_full((*x.shape[:-1], entries), -math.inf)
        y.index_copy_(-1, rows, few[..., :count])
        tokens = x.numel() // x.shape[-1]
        self.tokens += tokens
        self.computed += tokens * count
        return y

    def candidates_of(self, x: Tensor, k: int) -> int:
        """How many entries may be among the k largest for some token of x."""
        packed = self._current()
        return len(self.site.weight) if isinstance(packed, str) else int(candidates(x, packed.sketch, k).sum())

    def forget(self) -> None:
        """Begin to count anew."""
        self.tokens = self.computed = self._pause = self._paused = 0
        self.ran.clear()

    def _why_not(self, x: Tensor) -> str | None:
        module = self.module
        if module._forward_hooks or module._forward_pre_hooks:
            return "A hook may look at the head's logits."
        if module._parameters.get("bias") is not None:
            return "The head was given a bias."
        weight = module._parameters.get("weight")
        if type(x) is not Tensor or weight is None or x.dtype != weight.dtype or not (x.is_cpu and weight.is_cpu):
            return "an input of another kind, dtype or device"
        if x.ndim == 0 or x.shape[-1] != weight.shape[1] or x.numel() == 0:
            return "an input that is empty or of another width"
        if x.numel() > MOST_TOKENS * x.shape[-1]:
            return f"more than {MOST_TOKENS} tokens at once"
        if torch.is_autocast_enabled("cpu"):
            return "autocast"
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            return "a gradient is wanted"
        return None

    def _current(self) -> Packed | str:
        """The sketch of the weights as they are now, or why there is none."""
        packed = self._packed
        if packed is not None:
            if packed.freshness.holds_at_a_glance(1):
                return packed
            self._packed, self._wait = None, REPACK_AFTER
        if self._wait > 0:
            self._wait -= 1
            return "The head's weights changed a short while ago."
        try:
            self._packed = packed = pack(self.site)
        except AssumptionError as error:
            self._wait = REPACK_AFTER
            return str(error)
        self._agreed.clear()
        return packed

    def _agrees(self, weight: Tensor, x: Tensor, room: int) -> bool:
        key = (tuple(x.shape), room, torch.get_num_threads(), products.allowed())
        found = self._agreed.get(key)
        if found is None:
            found = self._agreed[key] = rows_agree(weight, x, room)
        return found


class CertifiedGenerate:
    """Stands for ``generate`` of a model: while it runs, the head may be asked for a part of its logits."""

    def __init__(self, model: nn.Module, head: CertifiedHead) -> None:
        self.model: Any = model
        self.head = head

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(types.MethodType(type(self.model).generate, self.model))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        generate = type(self.model).generate
        try:
            bound = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError:
            return generate(self.model, *args, **kwargs)  # which says what is wrong
        with requested(self.head, why_all(bound)):
            return generate(self.model, *args, **kwargs)


class Processors:
    """Stands for the method that makes the logits processors: what they are decides what the head computes."""

    def __init__(self, model: nn.Module, head: CertifiedHead) -> None:
        self.model: Any = model
        self.head = head

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        made = type(self.model)._get_logits_processor(self.model, *args, **kwargs)
        request = current(self.head)
        if request is not None:
            config = kwargs["generation_config"] if "generation_config" in kwargs else args[0]
            decide(request, self.model, config, made)
        return made
