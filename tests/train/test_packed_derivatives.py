"""Other derivatives of a model with packed activations than one backward pass: dense ones, or one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, hvp, jacobian, jvp, vhp

from lazyneuron.core.errors import ConfigError
from lazyneuron.explain import sharpness
from lazyneuron.train import pack_activations_
from tests.accelerate.comparison import check_close
from tests.kernels import needs_kernels
from tests.train.packing import WIDTH, Gated, Written, plain, tokens

ARITHMETIC = ["dense", pytest.param("sparse", marks=needs_kernels)]
Run = Callable[[Tensor], Tensor]


def sublayer() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(WIDTH), *plain(nn.ReLU()))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: plain(nn.ReLU()),
    "dropout": lambda: plain(nn.ReLU(), dropout=0.2),
    "gated": Gated,
    "squared relu": Written,
    "behind a norm": sublayer,
}


def pair(name: str, arithmetic: str) -> tuple[nn.Module, nn.Module]:
    """The same weights, packed and as torch runs them."""
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(MODELS[name]())
    pack_activations_(made[0], arithmetic=arithmetic)
    return made[0], made[1]


def loss_of(model: nn.Module) -> Run:
    return lambda x: model(x).square().sum()


def penalty(model: nn.Module, x: Tensor) -> None:
    """On the gradient of the input, of weights that are frozen."""
    model.requires_grad_(False)
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(model)(x), x, create_graph=True)
    torch.autograd.grad(gradient.square().sum(), x, allow_unused=True)


def twice_in(number: int) -> Callable[[nn.Module, Tensor], None]:
    def ask(model: nn.Module, x: Tensor) -> None:
        some = list(model.parameters())[number]
        (gradient,) = torch.autograd.grad(loss_of(model)(x), some, create_graph=True)
        gradient.square().sum().backward()

    return ask


ASKED: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "hessian": lambda model, x: hessian(loss_of(model), x),
    "hvp": lambda model, x: hvp(loss_of(model), x, torch.ones_like(x)),
    "vhp": lambda model, x: vhp(loss_of(model), x, torch.ones_like(x)),
    "jvp": lambda model, x: jvp(model, x, torch.ones_like(x)),  # torch's differentiates the backward pass
    "jacobian": lambda model, x: jacobian(model, x, create_graph=True).sum().backward(),
    "penalty": penalty,
    "first weight": twice_in(0),
    "last parameter": twice_in(-1),
    "backward": lambda model, x: loss_of(model)(x).backward(create_graph=True),
}


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_gradients_are_refused_however_they_are_asked_for(name, ask, arithmetic):
    packed, _ = pair(name, arithmetic)
    with pytest.raises(ConfigError, match=r"no gradients of gradients; restore the model"):
        ASKED[ask](packed, tokens(2))


def test_the_curvature_of_a_packed_model_is_refused():
    packed, own = pair("relu", "dense")

    def ask(model: nn.Module) -> float:
        return sharpness(model, [tokens(4)], lambda y, x: (y - x).square().mean(), draws=2, steps=2).top

    assert ask(own) > 0
    with pytest.raises(ConfigError, match="no gradients of gradients"):
        ask(packed)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch's forward mode itself
@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "dropout"])
def test_first_derivatives_are_the_dense_ones(name, arithmetic):
    packed, own = pair(name, arithmetic)
    x = tokens(3)
    check_close(jacobian(packed, x), jacobian(own, x), length=400)
    check_close(jacobian(packed, x, vectorize=True), jacobian(own, x), length=400)
    with forward_ad.dual_level():
        duals = [model(forward_ad.make_dual(x, torch.ones_like(x))) for model in (packed, own)]
        check_close(*(forward_ad.unpack_dual(dual).tangent.detach() for dual in duals), length=400)


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("name", MODELS)
def test_a_graph_that_is_kept_gives_the_same_twice_and_many_gradients_at_once(name, arithmetic):
    packed, own = pair(name, arithmetic)
    outputs = []
    for model in (packed, own):
        torch.manual_seed(1)
        outputs.append(model(tokens(3)))
    many = torch.randn(4, *outputs[0].shape, generator=torch.Generator().manual_seed(2))
    found, wanted = (
        torch.autograd.grad(y, list(model.parameters()), many, is_grads_batched=True, retain_graph=True)
        for y, model in zip(outputs, (packed, own), strict=True)
    )
    one, again = (torch.autograd.grad(outputs[0], list(packed.parameters()), many[0], retain_graph=True) for _ in "12")
    for got, dense, first, second in zip(found, wanted, one, again, strict=True):
        check_close(got, dense, length=400)
        check_close(got[0], first, length=400)
        assert torch.equal(first, second)
