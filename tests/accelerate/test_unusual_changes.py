"""Changes after accelerate_ that leave addresses or version counters alone, add something, or cannot be followed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import lazyneuron as lazy
from lazyneuron.accelerate.execution import current, execution
from lazyneuron.accelerate.status import executions
from tests.accelerate.test_changed_models import IMPL, X, _of, _scale_data, accelerated, agree, build, run
from tests.kernels import needs_kernels

KINDS = ("whole", "spread gated")
D, H = 24, 160


def accelerate(plain: nn.Module) -> nn.Module:
    model = copy.deepcopy(plain.eval())
    lazy.accelerate_(model, impl=IMPL)
    agree(model, plain)
    return model


def last(model: nn.Module) -> str:
    return lazy.status(model).blocks[0].last


class Wrapped(Tensor):
    """A weight that keeps its numbers in another tensor, as quantised ones do."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        made: Wrapped = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        return func(*(a.inner if isinstance(a, cls) else a for a in args), **(kwargs or {}))


def _subclass(model: nn.Module) -> None:
    up = _of(model).up_proj
    up.weight = nn.Parameter(Wrapped(2 * up.weight.data), requires_grad=False)


def _subclass_swapped(model: nn.Module) -> None:
    up = _of(model).up_proj
    torch.utils.swap_tensors(up.weight, nn.Parameter(Wrapped(2 * up.weight.data), requires_grad=False))


def _strided(model: nn.Module) -> None:
    _of(model).up_proj.weight.data = torch.ones(2 * H, 2 * D)[::2, ::2]


def _inference(model: nn.Module) -> None:
    with torch.inference_mode():
        model.load_state_dict({key: 2 * value for key, value in model.state_dict().items()}, assign=True)


def _plain_attribute(model: nn.Module) -> None:
    up = _of(model).up_proj
    weight = up.weight.data.clone()
    del up.weight
    up.weight = weight  # type: ignore[assignment]
    run(model)
    weight.mul_(3)


UNWATCHABLE = {
    "subclass": (_subclass, "Wrapped"),
    "subclass, exchanged": (_subclass_swapped, "Wrapped"),
    "strided": (_strided, "spread in memory"),
    "inference": (_inference, "inference tensors"),
    "plain attribute": (_plain_attribute, "is no parameter"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", UNWATCHABLE)
def test_weights_that_cannot_be_watched_are_left_to_the_modules(name: str, kind: str) -> None:
    change, why = UNWATCHABLE[name]
    model, plain = accelerated(kind)
    for each in (model, plain):
        change(each)
    for _ in range(current.SOON):
        agree(model, plain)
    assert why in last(model) and lazy.refresh_(model).changes[0].action == "dense"
    for each in (model, plain):
        up = _of(each).up_proj
        up._parameters.pop("weight", None)
        up.__dict__.pop("weight", None)
        up.weight = nn.Parameter(torch.linspace(-1, 1, H * D).reshape(H, D).clone())
    if name == "inference":
        for each in (model, plain):
            each.load_state_dict({k: v.clone() for k, v in build(kind).state_dict().items()}, assign=True)
    agree(model, plain)
    assert last(model).startswith(("certified", "gather"))


def test_a_weight_on_the_meta_device_raises_what_the_plain_model_raises() -> None:
    model, _ = accelerated("whole")
    model.to("meta")
    with pytest.raises(RuntimeError):
        run(model)
    assert "'meta'" in lazy.refresh_(model).changes[0].reason and str(lazy.status(model))


@needs_kernels
def test_a_block_that_moves_says_from_where_to_where() -> None:
    model = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D)).eval().requires_grad_(False)
    lazy.accelerate_(model, impl="native")
    model.to("meta")
    assert model(torch.zeros(1, D, device="meta")).shape == (1, D)
    assert "moved from cpu to meta" in last(model) and "accelerate_ again" in last(model)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_bias_that_is_added_is_used(layer: int) -> None:
    plain = nn.Sequential(nn.Linear(D, H, bias=False), nn.ReLU(), nn.Linear(H, D, bias=False))
    model = accelerate(plain)
    for each in (model, plain):
        each[layer].bias = nn.Parameter(torch.ones(each[layer].out_features))  # type: ignore[index, union-attr]
    agree(model, plain)


def test_axes_exchanged_in_place_and_rows_cut_off_are_seen() -> None:
    """Both leave the address, the version counter and the bytes alone."""
    torch.manual_seed(0)
    square = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D))
    model = accelerate(square)
    for each in (model, square):
        each[0].weight.data = each[0].weight.data.t()  # type: ignore[index, union-attr, operator]
    agree(model, square)
    for kind in KINDS:
        model, plain = accelerated(kind)
        for each in (model, plain):
            block = _of(each)
            for site in (block.up_proj, block.gate_proj):
                if site is not None:
                    site.weight.data, site.bias.data = site.weight.data[:90], site.bias.data[:90]
            block.down_proj.weight.data = block.down_proj.weight.data[:, :90]
        agree(model, plain)


class Timm(nn.Module):
    """A block's module with places beside the layers that do nothing at first."""

    flag = False

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D)
        self.norm, self.drop = nn.Identity(), nn.Dropout(0.5)
        self.register_module("last", None)
        self.extra: nn.Module | None = None
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.fc2(self.norm(self.act(self.fc1(x))))) * self.scale
        x = x + 1 if self.flag else x
        x = x if self.extra is None else self.extra(x)
        return x if self.last is None else self.last(x)


def _set(name: str, value: Any) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        setattr(model[0], name, copy.deepcopy(value))  # type: ignore[index]

    return change


AROUND: dict[str, Callable[[nn.Module], Any]] = {
    "norm": _set("norm", nn.Hardtanh(0, 0.1)),
    "extra": _set("extra", nn.Tanh()),
    "last": _set("last", nn.Tanh()),
    "hook": lambda model: model[0].norm.register_forward_hook(lambda module, args, y: 2 * y),  # type: ignore[index, union-attr]
    "dropout": lambda model: model[0].drop.train(),  # type: ignore[index, union-attr]
    "scale": _set("scale", 2.0),
    "flag": _set("flag", True),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_lies_beside_the_layers_of_a_module_counts(name: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(Timm())
    model = accelerate(plain)
    for each in (model, plain):
        AROUND[name](each)
    for _ in range(execution.SETTINGS_EVERY if name in ("scale", "flag") else 0):
        run(model)
    torch.manual_seed(0)
    wanted = run(plain)
    torch.manual_seed(0)
    torch.testing.assert_close(run(model), wanted, rtol=1e-5, atol=1e-5)
    assert not last(model).startswith(("certified", "gather"))


def test_a_layer_appended_to_a_sequence_runs() -> None:
    plain = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D))
    model = accelerate(plain)
    for each in (model, plain):
        each.append(nn.Tanh())  # type: ignore[operator]
    agree(model, plain)


def test_new_code_of_a_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Sequential(Timm())
    model, old = accelerate(plain), Timm.forward
    monkeypatch.setattr(Timm, "forward", lambda self, x: old(self, x) + 1)
    for _ in range(execution.SETTINGS_EVERY):
        run(model)
    agree(model, plain)


@pytest.mark.parametrize("place", ["module", "activation"])
def test_a_block_whose_code_may_read_other_tensors_is_refused(place: str) -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor) -> Tensor:
            return F.relu(z) * self.gain

    class Scaled(Timm):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("gain", torch.ones(D))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.gain

    model = nn.Sequential(Scaled() if place == "module" else nn.Sequential(nn.Linear(D, H), Gain(), nn.Linear(H, D)))
    with pytest.raises(lazy.core.errors.NoBlocksError, match="holds the tensor 'gain'"):
        lazy.accelerate_(model.eval())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_other_layouts_take_the_modules(kind: str) -> None:
    model, plain = accelerated(kind)
    if kind == "whole":
        for x in (X.to_sparse(), X.to_sparse_csr()):
            agree(model, plain, x)
        nested = torch.nested.nested_tensor([X[:3], X[3:]])
        for got, wanted in zip(run(model, nested).unbind(), run(plain, nested).unbind(), strict=True):
            torch.testing.assert_close(got, wanted)
    for tokens in range(30):
        run(model, torch.empty(tokens, 0, D))
    assert len(lazy.status(model).blocks[0].fallbacks) <= 2
    with torch.no_grad():
        graph = make_fx(model)(X)
    assert "lazyneuron" not in graph.code
    torch.testing.assert_close(graph(X), run(plain))


def test_a_doubt_holds_for_other_threads_until_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = accelerated("whole")
    (one,) = executions(model)
    doubted: list[bool] = []
    real = one.current._is_as_packed

    def look(state: current.State) -> bool:
        doubted.append(one.current._doubt is not one.current._settled)
        return real(state)

    monkeypatch.setattr(one.current, "_is_as_packed", look)
    model.eval()
    run(model)
    assert doubted == [True] and one.current._doubt is one.current._settled
    _scale_data(model)
    assert one.current.repacked == 0


def test_a_double_model_is_not_packed_at_each_call() -> None:
    model, plain = accelerated("whole")
    for each in (model, plain):
        each.double()
    for _ in range(5):
        agree(model, plain, X.double())
    assert "float64" in last(model) and lazy.status(model).blocks[0].repacked == 0
    for each in (model, plain):
        each.float()
    agree(model, plain)
    assert last(model).startswith(("certified", "gather"))


@pytest.mark.parametrize("way", ["in place", "another address"])
def test_one_number_whose_change_leaves_a_mark_is_seen_at_once(way: str) -> None:
    """Content alone would see it within many calls: the version counter tells, and the address."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 64)).eval()
    model, x = copy.deepcopy(plain), torch.randn(1, 64)
    lazy.accelerate_(model, impl=IMPL)
    agree(model, plain, x)
    fired = int((plain[0](x) > 0)[0].nonzero()[-1])
    for each in (model, plain):
        weight = each[2].weight
        if way == "in place":
            with torch.no_grad():
                weight[63, fired] += 1e2
        else:
            other = weight.data.clone()
            other[63, fired] += 1e2
            weight.data = other
    torch.testing.assert_close(run(model, x), run(plain, x), rtol=1e-4, atol=1e-3)
