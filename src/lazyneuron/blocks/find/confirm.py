"""Confirm by experiment that layers form a block: put values between them and see what arrives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import ActivationSite
from lazyneuron.blocks.find.dataflow import Candidate, depends, same
from lazyneuron.blocks.find.trace import Call, Trace
from lazyneuron.blocks.gaussian_top_k import fitted_gaussian_top_k
from lazyneuron.blocks.identify import agrees, identify, is_affine, is_elementwise, known_kind

UNKNOWN = "Its activation is written into a forward and is none of the known kinds; hold it as an attribute."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What an experiment showed about a candidate.

    Attributes:
        activation: the function; None when it is unknown and cannot be called.
        site: where it is called, if outside can reach it.
        dropouts: modules that may drop hidden activations.
        dropped: True when functional dropout does.
    """

    activation: Activation | None
    site: ActivationSite | None
    dropouts: tuple[str, ...]
    dropped: bool


@dataclasses.dataclass(frozen=True)
class _Experiment:
    """First rows of what was put in (z, u) and of what arrived at ``down`` (h), and h / u."""

    z: Tensor
    u: Tensor | None
    h: Tensor
    value: Tensor
    trace: Trace


def confirm(trace: Trace, candidate: Candidate, model: nn.Module) -> Confirmed | None:
    """Does ``down`` read an element-wise function of the switch (times ``up``), for any pre-activations?"""
    shown = _experiment(trace, candidate)
    if shown is None or (candidate.rectifies_up and not _rectifies(trace, candidate)):
        return None
    call = _activation_call(shown, model)
    activation, site = None, None
    if call is None:
        activation = known_kind(shown.z, shown.value) or _gaussian(trace, candidate)
        if activation is None and not _elementwise_but_unknown(trace, candidate, shown):
            return None
    else:
        site = _site(call, model)
        activation = _activation(site, shown)
        if candidate.rectifies_up and _reads_factors(call, shown):
            site = None  # another function there would change the other factor too
        if activation is None:
            return None
    if activation is not None and activation.kind == "identity":
        return None
    dropouts = [call.name for call in shown.trace.calls if _drops(call, shown, model)]
    functional = [x for x in shown.trace.dropped if same(x, shown.h) or same(x, shown.value)]
    return Confirmed(
        activation=activation,
        site=site,
        dropouts=tuple(dict.fromkeys(dropouts)),
        dropped=len(functional) > len(dropouts),  # a dropout module calls the functional one
    )


def _rectifies(trace: Trace, candidate: Candidate) -> bool:
    """Is ``down`` given 0 wherever a factor is negative, and what positive ones give elsewhere?"""
    signed, shown = _experiment(trace, candidate, factors=_factors), _experiment(trace, candidate)
    if signed is None or shown is None or signed.u is None:
        return False
    return agrees(signed.h, shown.value * signed.u.clamp_min(0))


def _reads_factors(call: Call, shown: _Experiment) -> bool:
    """Is the same function called with the other factor too?"""
    assert shown.u is not None
    others = [c for c in shown.trace.calls if (c.name, c.attribute) == (call.name, call.attribute) and c is not call]
    return any(same(other.input, shown.u) for other in others)


def _gaussian(trace: Trace, candidate: Candidate) -> Activation | None:
    """The Gaussian top-k that gave these values, if one did: of pre-activations that have a few large ones."""
    shown = _experiment(trace, candidate, pre_activations=_heavy_tailed)
    if shown is None:
        return None
    fitted = (Activation(f"gaussian_top_k{end}", (d,)) for end, d in fitted_gaussian_top_k(shown.z, shown.value))
    return next((activation for activation in fitted if agrees(activation(shown.z), shown.value)), None)


def _experiment(
    trace: Trace,
    candidate: Candidate,
    *,
    pre_activations: Callable[[Tensor], Tensor] | None = None,
    factors: Callable[[Tensor], Tensor] | None = None,
) -> _Experiment | None:
    """Run once more with chosen pre-activations (and, gated, chosen factors) in place of the layers' outputs."""
    pre_activations = pre_activations or _pre_activations
    factors = factors or (_positive_factors if candidate.rectifies_up else _factors)
    replace: dict[str, Callable[[Tensor], Tensor]] = {}
    up, gate = candidate.up, candidate.gate
    if gate is None:
        replace[up.name] = pre_activations
    elif gate.name == up.name:

        def merged(output: Tensor) -> Tensor:
            output = output.clone()
            gate.part_of(output).copy_(pre_activations(gate.part_of(output)))
            up.part_of(output).copy_(factors(up.part_of(output)))
            return output

        replace[up.name] = merged
    else:
        replace[gate.name] = pre_activations
        replace[up.name] = factors
    try:
        probed = trace.again(replace)
        z = candidate.first.part_of(probed.linears[candidate.first.name].output)
        u = None if gate is None else up.part_of(probed.linears[up.name].output)
        h = probed.linears[candidate.down.name].input
    except Exception:
        return None
    if h.shape != z.shape or (u is not None and u.shape != h.shape):
        return None
    return _Experiment(z, u, h, h if u is None else h / u, probed)


def _pre_activations(like: Tensor) -> Tensor:
    uniform = torch.rand(like.shape, generator=torch.Generator().manual_seed(11), device="cpu") * 2 - 1
    reach = torch.where(
        torch.rand(like.shape, generator=torch.Generator().manual_seed(12), device="cpu") < 0.5, 10.0, 3.0
    )
    return (uniform * reach).to(like.device, like.dtype)


def _changed_pre_activations(like: Tensor) -> Tensor:
    """The same, but larger by 1 at every second neuron and at the first token."""
    z = _pre_activations(like)
    z[..., ::2] += 1
    z.view(-1, z.shape[-1])[0, 1::2] += 1
    return z


def _factors(like: Tensor) -> Tensor:
    uniform = torch.rand(like.shape, generator=torch.Generator().manual_seed(13), device="cpu") * 3 - 1.5
    return (uniform + uniform.sign() * 0.5).to(like.device, like.dtype)


def _positive_factors(like: Tensor) -> Tensor:
    return _factors(like).abs()


def _heavy_tailed(like: Tensor) -> Tensor:
    normal = torch.randn(like.shape, generator=torch.Generator().manual_seed(14), device="cpu")
    return normal.pow(3).to(like.device, like.dtype)


def _activation_call(shown: _Experiment, model: nn.Module) -> Call | None:
    """The call that turned z into s(z): rather of a leaf module than of a nest of them, rather that than a function."""

    def fits(call: Call) -> bool:
        if not same(call.input, shown.z) or call.output.shape != shown.z.shape:
            return False
        return agrees(call.output if shown.u is None else call.output * shown.u, shown.h)

    def rank(call: Call) -> tuple[bool, bool, int]:
        return call.attribute is not None, bool(model.get_submodule(call.name)._modules), call.depth

    fitting = [call for call in shown.trace.calls if call.name and fits(call)]
    return min(fitting, key=rank, default=None)


def _site(call: Call, model: nn.Module) -> ActivationSite:
    owner_name, attribute = (call.name, call.attribute)
    if attribute is None:
        owner_name, _, attribute = call.name.rpartition(".")
    return ActivationSite(owner_name=owner_name, owner=model.get_submodule(owner_name), attribute=attribute)


def _activation(site: ActivationSite, shown: _Experiment) -> Activation | None:
    """The function at a site as a fact that agrees with what was seen; None when it is no activation function."""
    try:
        activation = identify(site.function)
        if not agrees(activation(shown.z.clone()), shown.value):
            activation = Activation("other", function=site.function)
        known = activation.kind != "other"
        if known or (is_elementwise(activation, shown.z) and not is_affine(activation, shown.z)):
            return activation
    except Exception:
        return None
    return None


def _elementwise_but_unknown(trace: Trace, candidate: Candidate, shown: _Experiment) -> bool:
    """Does what arrives change where z changed and nowhere else, and not along a line?"""
    if not depends(shown.z, shown.value):
        return False
    other = _experiment(trace, candidate, pre_activations=_changed_pre_activations)
    if other is None or not same(other.value[1:, 1::2], shown.value[1:, 1::2]):
        return False
    steps = (other.value - shown.value)[1:, ::2].float()
    return not torch.allclose(steps, steps[:1].expand_as(steps), rtol=1e-2, atol=1e-3)


def _drops(call: Call, shown: _Experiment, model: nn.Module) -> bool:
    """Does the call hand the hidden activation on as it is, as dropout does in evaluation mode?"""
    if call.attribute is not None or not any(
        same(call.input, t) and same(call.output, t) for t in (shown.h, shown.value)
    ):
        return False
    module = model.get_submodule(call.name)
    return not module._modules and not isinstance(module, nn.Identity)
