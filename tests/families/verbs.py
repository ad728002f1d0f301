"""What really happens when each verb meets a family: every cell is earned by a comparison with the original model."""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.blocks import Activation, Found, MLPBlock, find, splice_
from lazyneuron.core.errors import LazyNeuronError, NoBlocksError
from lazyneuron.core.undo import transaction
from tests.families.families import Family
from tests.kernels import SPARSE

LIMIT = 3e-6  # of the largest output, 25 units in the last place of float32
STEPS = 5


@dataclasses.dataclass
class Row:
    """One family's cells, by verb, why a verb refuses, and how far the accelerated output lay from the dense one."""

    title: str
    cells: dict[str, str] = dataclasses.field(default_factory=dict)
    why: str = ""
    difference: float = 0.0


def outputs(model: nn.Module, batch: dict[str, Any]) -> list[Tensor]:
    """The floating-point tensors that come out, caches left out."""
    with torch.no_grad():
        result = model(**batch)
    if hasattr(result, "to_tuple"):
        result = [value for key, value in result.items() if "past" not in key and "cache" not in key]
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def apart(new: list[Tensor], old: list[Tensor]) -> float:
    """Largest difference, in units of the largest output."""
    assert len(new) == len(old) > 0
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(new, old, strict=True))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """Are both states bitwise the same?"""
    one, other = a.state_dict(), b.state_dict()
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def by_hand(block: MLPBlock, kind: str) -> Any:
    """The block's formula with another function."""
    function = {"relu": torch.relu, "squared_relu": lambda z: torch.relu(z) ** 2}[kind]

    def run(x: Tensor) -> Tensor:
        h = function(F.linear(x, block.first.weight, block.first.bias))
        h = h if block.gate is None else h * F.linear(x, block.up.weight, block.up.bias)
        return F.linear(h, block.down.weight, block.down.bias)

    return run


def generated(model: nn.Module, prompt: dict[str, Any]) -> Tensor:
    """Greedy tokens."""
    fixed = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "pad_token_id": 0}
    if model.config.is_encoder_decoder:
        fixed["decoder_start_token_id"] = 1
    with torch.no_grad():
        return model.generate(**prompt, **fixed)


@functools.cache
def row(name: str) -> Row:
    """Put one family through all verbs.

    A cell says "ok" after the comparisons of its function below, "refused" when the verb raised a sentence, and "-"
    when there is nothing to do.
    """
    family = Family(name)
    model, batch = family.model(), family.known.batch
    found = find(model)
    result = Row(family.known.title)
    result.cells["find"] = _find(found)
    reasons = [r.reason for r in found.rejected]
    if not found.blocks:
        _all_refuse(result, model, batch, reasons)
    else:
        _through(result, family, model, found)
    result.why = " ".join(dict.fromkeys([result.why, *reasons])).strip()
    return result


def _find(found: Found) -> str:
    plain = sum(block.gate is None for block in found.blocks)
    parts = {"plain": plain, "gated": len(found.blocks) - plain, "refused": len(found.rejected)}
    return ", ".join(f"{count} {kind}" for kind, count in parts.items() if count) or "none"


def _all_refuse(result: Row, model: nn.Module, batch: dict[str, Any], reasons: list[str]) -> None:
    verbs = {
        "measure": lambda: lazy.measure(model, [batch]),
        "sparsify": lambda: lazy.sparsify_(model, lazy.Relufy()),
        "accelerate": lambda: lazy.accelerate_(model),
    }
    for verb, run in verbs.items():
        try:
            run()
        except NoBlocksError as error:
            assert not reasons or reasons[0] in str(error), f"{verb} does not say why"
            result.cells[verb] = "refused"
        else:
            raise AssertionError(f"{verb} found something where find did not")
    result.why = "" if reasons else "It has no MLP block."
    result.cells |= dict.fromkeys(("generate", "save", "reload", "restore"), "-")


def _through(result: Row, family: Family, model: nn.Module, found: Found) -> None:
    batch = family.known.batch
    original = copy.deepcopy(model)
    before = outputs(model, batch)
    result.cells["measure"] = _measure(model, batch, found)
    own = all(not block.activation.zero.empty for block in found.blocks) and not any(b.refusal for b in found.blocks)
    if own:
        lazy.restore_(model, _accelerate(result, model, batch, found, before))
    kinds = {block.activation.kind for block in found.blocks}
    kind = "squared_relu" if kinds == {"relu"} else "relu"
    try:
        sparsified = lazy.sparsify_(model, lazy.Relufy(activation=Activation(kind)))
    except LazyNeuronError as error:
        result.cells |= {"sparsify": "refused", "accelerate": _refused(model)}
        result.cells |= dict.fromkeys(("generate", "save", "reload", "restore"), "-")
        result.why = str(error)
        return
    assert _names_rejected(sparsified, found)
    dense = copy.deepcopy(model)
    wanted = outputs(dense, batch)
    result.cells["sparsify"] = _sparsify(original, batch, kind, sparsified, wanted)
    accelerated = _accelerate(result, model, batch, found, wanted)
    result.cells |= {"accelerate": "ok" if own else "after sparsify", "generate": "-"}
    if family.head is not None:
        assert torch.equal(generated(model, family.prompt), generated(dense, family.prompt))
        result.cells["generate"] = "ok"
    result.cells |= _save(family, model, (sparsified, accelerated))
    lazy.restore_(model, accelerated)
    lazy.restore_(model, sparsified)
    assert all(map(torch.equal, outputs(model, batch), before)) and same_state(model, original)
    result.cells["restore"] = "ok"


def _accelerate(
    result: Row, model: nn.Module, batch: dict[str, Any], found: Found, wanted: list[Tensor]
) -> lazy.Receipt:
    """Every block sparsely, whatever is faster; the output beside the dense one's."""
    receipt = lazy.accelerate_(model, impl=SPARSE)
    sparse = {change.block for change in receipt.changes if change.action == "accelerated"}
    assert sparse == {block.name for block in found.blocks}
    assert _names_rejected(receipt, found)
    difference = apart(outputs(model, batch), wanted)
    assert difference <= LIMIT
    result.difference = max(result.difference, difference)
    return receipt


def _names_rejected(receipt: lazy.Receipt, found: Found) -> bool:
    said = [(change.block, change.action, change.reason) for change in receipt.changes]
    return all((rejected.name, "skipped", rejected.reason) in said for rejected in found.rejected)


def _refused(model: nn.Module) -> str:
    try:
        lazy.accelerate_(model)
    except NoBlocksError:
        return "refused"
    return "ok"


def _measure(model: nn.Module, batch: dict[str, Any], found: Found) -> str:
    """Every block's density against a count over its first layer's own inputs."""
    seen: dict[str, list[Tensor]] = {block.name: [] for block in found.blocks}
    handles = [
        block.first.module.register_forward_pre_hook(lambda _, x, name=block.name: seen[name].append(x[0].clone()))
        for block in found.blocks
    ]
    outputs(model, batch)
    for handle in handles:
        handle.remove()
    report = lazy.measure(model, [batch])
    assert report.rejected == found.rejected
    for block, measured in zip(found.blocks, report.blocks, strict=True):
        z = [F.linear(x, block.first.weight, block.first.bias) for x in seen[block.name]]
        fired = [block.activation(part).reshape(-1, block.d_hidden) != 0 for part in z]
        if fired and sum(map(len, fired)):
            assert abs(float(torch.cat(fired).double().mean()) - (measured.density or 0)) < 1e-3
        else:
            assert not measured.tokens
    return "ok"


def _sparsify(
    original: nn.Module, batch: dict[str, Any], kind: str, receipt: lazy.Receipt, wanted: list[Tensor]
) -> str:
    """The new function in every block, against the formula spliced into the original."""
    blocks = find(original).blocks
    replaced = {change.block for change in receipt.changes if change.action == "replaced"}
    assert replaced == {block.name for block in blocks if block.activation.kind != kind}
    with transaction(original, "by hand") as change:
        for block in blocks:
            splice_(change, block, by_hand(block, kind))
    assert apart(outputs(original, batch), wanted) <= LIMIT
    lazy.restore_(original, "by hand")
    return "ok"


def _save(family: Family, model: nn.Module, receipts: tuple[lazy.Receipt, ...]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        lazy.save(model, folder, *receipts)
        fresh = family.model(seed=1)
        assert not same_state(fresh, model)
        lazy.load_(fresh, folder)
    assert same_state(fresh, model)
    assert apart(outputs(fresh, family.known.batch), outputs(model, family.known.batch)) <= LIMIT
    return {"save": "ok", "reload": "ok"}
