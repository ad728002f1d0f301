"""Decoder layers whose attention is what ``attention_step`` computes, told by what their code makes of random numbers.

A layer's own forward runs on a shallow copy of it whose parts are stand-ins, and so does its attention's; what comes
out is compared with the definition. Nothing of the weights counts, so that they need not be there yet.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.ops.decoding.reference import single_query_attention
from lazyneuron.ops.decoding.step import turned

_WIDTH, _BATCH, _SEEN = 8, 2, 5  # of stand-ins for hidden states; sequences; tokens seen before


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderLayer:
    """A layer ``y = x + attention(norm(x)); y + rest(norm(y))``.

    Attributes:
        norms: names of its two norms within it.
        attention, rest: names of its attention and of what comes after, most often an MLP block.
        linears: names within the attention of queries, keys, values and the projection back.
        head_norms: names within the attention of norms of query heads and key heads, or none.
        index: which layer of a cache it uses.
        scale: of the products of queries and keys.
    """

    norms: tuple[str, str]
    attention: str
    rest: str
    linears: tuple[str, str, str, str]
    head_norms: tuple[str, ...]
    index: int
    scale: float

    def to_data(self) -> dict[str, Any]:
        """What a receipt keeps: JSON-able, for :meth:`of_data`."""
        data = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> DecoderLayer:
        """From what :meth:`to_data` gives."""
        made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**made)


def find_decoder_layers(model: nn.Module, norms: Mapping[str, Mapping[str, Any]]) -> dict[str, DecoderLayer]:
    """The layers of a model by name that are such.

    Args:
        model: in evaluation mode, maybe without weights; layers whose parts were replaced or hooked are left out.
        norms: its RMS norms, of :func:`lazyneuron.accelerate.quantised.norms.find_norms`.
    """
    found = {}
    for name, module in model.named_modules():
        inside = {key: f"{name}.{key}".lstrip(".") for key in module._modules}
        own = [key for key, full in inside.items() if full in norms]
        others = [key for key, child in module._modules.items() if key not in own and child is not None]
        if len(own) != 2 or len(others) != 2 or norms[inside[own[0]]] != norms[inside[own[1]]]:
            continue
        layer = _layer(module, own, others, name, norms)
        if layer is not None:
            found[name] = layer
    return found


def _layer(
    module: nn.Module, own: list[str], others: list[str], name: str, norms: Mapping[str, Mapping[str, Any]]
) -> DecoderLayer | None:
    for attention, rest in (others, others[::-1]):
        inner = module._modules[attention]
        assert inner is not None
        linears = [key for key, child in inner._modules.items() if type(child) is nn.Linear]
        kept = [key for key in inner._modules if f"{name}.{attention}.{key}" in norms]
        same = all(norms[f"{name}.{attention}.{key}"] == norms[f"{name}.{own[0]}"] for key in kept)
        if len(linears) != 4 or len(kept) not in (0, 2) or len(linears) + len(kept) < len(inner._modules) or not same:
            continue
        scale, index = getattr(inner, "scaling", None), getattr(inner, "layer_idx", None)
        if not isinstance(scale, float) or not isinstance(index, int):
            continue
        layer = DecoderLayer(
            norms=(own[0], own[1]), attention=attention, rest=rest, index=index, scale=scale,
            linears=(linears[0], linears[1], linears[2], linears[3]), head_norms=tuple(kept),
        )  # fmt: skip
        if not _touched(module, inner) and _is_such(module, layer):
            return layer
    return None


def _touched(*modules: nn.Module) -> bool:
    """Would something else run than the code of the classes?"""
    return any("forward" in m.__dict__ or m._forward_hooks or m._forward_pre_hooks or m.training for m in modules)


@torch.no_grad()
def _is_such(module: nn.Module, layer: DecoderLayer) -> bool:
    try:
        return _adds_up(module, layer) and all(_attends(module, layer, size) for size in (0.3, 8.0))
    except Exception:  # code that wants something else is another layer's
        return False


class _Part(nn.Module):
    """Stands in for a part of a layer: multiplies, and remembers what else it was given."""

    def __init__(self, factor: Tensor, *, pair: bool = False) -> None:
        super().__init__()
        self.factor, self.pair = factor, pair
        self.given: dict[str, Any] = {}

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        """``x * factor``, which nothing else than this part would do."""
        self.given = kwargs
        y = hidden_states * self.factor
        return (y, None) if self.pair else y


def _adds_up(module: nn.Module, layer: DecoderLayer) -> bool:
    """Norm, attention, sum, norm, rest, sum, and the attention is told of positions and cache and of no mask."""
    made = torch.Generator().manual_seed(0)
    x, *factors = torch.randn(5, _BATCH, 1, _WIDTH, generator=made, dtype=torch.float64)
    one, attend, two, rest = (_Part(f, pair=k == 1) for k, f in enumerate(factors))
    parts = dict(
        zip((layer.norms[0], layer.attention, layer.norms[1], layer.rest), (one, attend, two, rest), strict=True)
    )
    angles, cache = (x, x), object()
    given = {"attention_mask": None, "position_embeddings": angles, "past_key_values": cache, "use_cache": True}
    got = type(module).forward(_with(module, parts), x, position_ids=torch.zeros(1, 1), **given)
    y = x + factors[0] * x * factors[1]
    return (
        isinstance(got, Tensor)
        and torch.equal(got, y + y * factors[2] * factors[3])
        and attend.given.get("attention_mask", angles) is None
        and attend.given.get("position_embeddings") is angles
        and attend.given.get("past_key_values") is cache
        and not rest.given
    )


class _Cache:
    """Stands in for a cache in which every layer saw the same tokens."""

    is_compileable = False

    def __init__(self, held: tuple[Tensor, Tensor]) -> None:
        self.held, self.index = held, -1

    def update(self, keys: Tensor, values: Tensor, index: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """All tokens."""
        self.index = index
        return torch.cat((self.held[0], keys), 2), torch.cat((self.held[1], values), 2)


def _attends(module: nn.Module, layer: DecoderLayer, size: float) -> bool:
    """The definition's numbers from hidden states of this size, the larger of which shows caps of scores."""
    attention = module._modules[layer.attention]
    assert attention is not None
    real = [attention.get_submodule(key) for key in layer.linears]
    norms: list[Any] = [_other_weight(attention.get_submodule(key)) for key in layer.head_norms]
    inner, shared = int(real[0].out_features), int(real[1].out_features)  # type: ignore[arg-type]
    head = int(norms[0].weight.shape[0]) if norms else int(attention.head_dim)  # type: ignore[arg-type]
    made = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=made)

    linears = [
        _linear(draw(n, m), draw(n)) for n, m in ((inner, _WIDTH), (shared, _WIDTH), (shared, _WIDTH), (_WIDTH, inner))
    ]
    held = (draw(_BATCH, shared // head, _SEEN, head), draw(_BATCH, shared // head, _SEEN, head))
    x, cos, sin = size * draw(_BATCH, 1, _WIDTH), draw(_BATCH, 1, head), draw(_BATCH, 1, head)
    cache = _Cache(held)
    copied = _with(attention, dict(zip((*layer.linears, *layer.head_norms), (*linears, *norms), strict=True)))
    got = type(attention).forward(
        copied, hidden_states=x, position_embeddings=(cos, sin), attention_mask=None, past_key_values=cache
    )
    parts = [linear(x).unflatten(-1, (-1, head)) for linear in linears[:3]]
    parts[: len(norms)] = [type(norm).forward(norm, part) for norm, part in zip(norms, parts, strict=False)]
    queries, keys = (turned(part.transpose(1, 2), cos[:, None], sin[:, None]) for part in parts[:2])
    every = [torch.cat((old, new), 2) for old, new in zip(held, (keys, parts[2].transpose(1, 2)), strict=True)]
    wanted = linears[3](single_query_attention(queries, every[0], every[1], layer.scale).flatten(2))
    return cache.index == layer.index and torch.allclose(got[0], wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(1, 1, device="meta")
    layer.weight, layer.bias = (nn.Parameter(t / t.shape[-1] ** 0.5, requires_grad=False) for t in (weight, bias))
    return layer


def _other_weight(norm: nn.Module) -> nn.Module:
    """The norm with random weights."""
    width = norm._parameters["weight"].shape[0]  # type: ignore[union-attr]
    weight = 1 + torch.randn(width, generator=torch.Generator().manual_seed(2)) / 4
    copied = copy.copy(norm)
    copied.__dict__["_parameters"] = {**norm._parameters, "weight": nn.Parameter(weight, requires_grad=False)}
    return copied


def _with(module: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A shallow copy of a module with these parts."""
    copied = copy.copy(module)
    copied.__dict__["_modules"] = dict(parts)
    return copied
