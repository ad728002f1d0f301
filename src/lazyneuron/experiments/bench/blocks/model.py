"""A block as the model that a user has: modules whose forward is called, on the same parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_, status
from lazyneuron.accelerate.policy.choice import bucket_of
from lazyneuron.blocks import LinearSite, MLPBlock
from lazyneuron.core.errors import NoBlocksError, TimingWarning
from lazyneuron.core.undo import restore_


class BlockModel(nn.Module):
    """A ReLU block, plain or gated.

    Args:
        block: its parameters are shared, its modules are not, so that what is done to this model is not done to them.
    """

    def __init__(self, block: MLPBlock) -> None:
        super().__init__()
        self.up, self.down = _layer(block.up), _layer(block.down)
        self.gate = None if block.gate is None else _layer(block.gate)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, d_in) -> (tokens, d_out)."""
        if self.gate is not None:
            y: Tensor = self.down(F.relu(self.gate(x)) * self.up(x))
        else:
            y = self.down(F.relu(self.up(x)))
        return y


def _layer(site: LinearSite) -> nn.Linear:
    n_out, n_in = site.weight.shape
    layer = nn.Linear(n_in, n_out, bias=site.bias is not None, device="meta")
    for name, tensor in (("weight", site.weight), ("bias", site.bias)):
        if tensor is not None:
            shared = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
            setattr(layer, name, shared)
    return layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerated:
    """A block's model after `accelerate_`.

    Attributes:
        run: its forward, with all checks of a call.
        chosen: the path at first.
        now: the path at present; it follows the density and the times that are seen.
        added_bytes: memory beside the model's own.
        notes: of the receipt.
    """

    run: Callable[[Tensor], Tensor]
    chosen: str
    now: Callable[[], str]
    added_bytes: int
    notes: tuple[str, ...]


@contextlib.contextmanager
def accelerated(block: MLPBlock, calibration: Iterable[Tensor], *, tokens: int) -> Iterator[Accelerated]:
    """What a user gets: a model on which `accelerate_` was called; taken back at the end.

    Args:
        block: the dense block.
        calibration: batches to accelerate on; none of them is measured on.
        tokens: of the calls that will be measured.
    """
    model = BlockModel(block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimingWarning)  # it stands in the notes
        receipt = accelerate_(model, calibration)
    (change,) = receipt.changes
    upper = 2 ** bucket_of(tokens)
    try:
        status(model)
        changed = True
    except NoBlocksError:  # dense is faster at every count, so the model was left alone
        changed = False

    def now() -> str:
        return status(model).blocks[0].path_by_tokens[upper] if changed else "dense"

    try:
        yield Accelerated(
            run=model,
            chosen=change.details["path_by_tokens"][f"<= {upper}"],
            now=now,
            added_bytes=change.details["added_bytes"] if changed else 0,
            notes=receipt.notes,
        )
    finally:
        restore_(model, receipt)
