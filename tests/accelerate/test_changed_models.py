"""A model that changes after accelerate_ never answers with what it was: each way to change it, and a plain twin."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.execution import current, execution
from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.status import executions
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.ops.fingerprint import fingerprint
from lazyneuron.ops.native import load

IMPL = "native" if load.status().available else "gather"
D, H = 24, 160


class Whole(nn.Module):
    """A module of its own stands for the block."""

    def __init__(self, gated: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(D, H) if gated else None
        self.up_proj, self.down_proj = nn.Linear(D, H), nn.Linear(H, D)
        self.act_fn = nn.ReLU()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        h = self.act_fn(up) if self.gate_proj is None else self.act_fn(self.gate_proj(x)) * up
        return self.down_proj(self.dropout(h))


class Spread(Whole):
    """The block's layers lie in a module that does more."""

    def __init__(self, gated: bool = False) -> None:
        super().__init__(gated)
        self.norm = nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(self.norm(x))


def build(kind: str) -> nn.Module:
    torch.manual_seed(3)
    layer = {"whole": Whole, "spread": Spread}[kind.split(maxsplit=1)[0]](gated="gated" in kind)
    with torch.no_grad():
        (layer.up_proj if layer.gate_proj is None else layer.gate_proj).bias.sub_(0.7)
    return nn.Sequential(layer).eval()


KINDS = ("whole", "whole gated", "spread", "spread gated")
X = torch.randn(7, D, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        return model(x)


def sparse_calls(model: nn.Module) -> int:
    return sum(block.sparse_calls for block in lazy.status(model).blocks)


def accelerated(kind: str) -> tuple[nn.Module, nn.Module]:
    """An accelerated model that has answered once, and its plain twin."""
    plain = build(kind)
    model = copy.deepcopy(plain)
    lazy.accelerate_(model, impl=IMPL)
    torch.testing.assert_close(run(model), run(plain), rtol=1e-5, atol=1e-5)
    assert sparse_calls(model) == 1
    return model, plain


def wide() -> tuple[nn.Module, nn.Module, Tensor]:
    """An accelerated model of which one call compares a small part, its plain twin, and an input."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 64)).eval()
    model = copy.deepcopy(plain)
    lazy.accelerate_(model, impl=IMPL)
    x = torch.randn(1, 64)
    return model, plain, x


def agree(model: nn.Module, plain: nn.Module, x: Tensor = X) -> None:
    torch.testing.assert_close(run(model, x), run(plain, x), rtol=1e-5, atol=1e-5)


def step_with(optimizer: type[torch.optim.Optimizer], **options: object) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(5)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer(model.parameters(), lr=0.3, **options).step()  # type: ignore[call-arg]

    return change


def _of(model: nn.Module) -> Whole:
    layer = model[0]  # type: ignore[index]
    assert isinstance(layer, Whole)
    return layer


def _scale_data(model: nn.Module) -> None:
    _of(model).up_proj.weight.data.mul_(-1.5)


def _copy_data(model: nn.Module) -> None:
    down = _of(model).down_proj.weight
    down.data.copy_(torch.linspace(-1, 1, down.numel()).reshape(down.shape))


def _add_data(model: nn.Module) -> None:
    _of(model).up_proj.bias.data += 1.0


def _numpy(model: nn.Module) -> None:
    _of(model).down_proj.weight.detach().numpy()[:] *= 3


def _swap_rows(model: nn.Module) -> None:
    weight = _of(model).up_proj.weight.data
    weight[:] = weight.flip(0).clone()


def _load(model: nn.Module) -> None:
    model.load_state_dict({key: 2 * value for key, value in model.state_dict().items()})


def _assign(model: nn.Module) -> None:
    model.load_state_dict({key: 2 * value for key, value in model.state_dict().items()}, assign=True)


WRITES = {
    "fused AdamW": step_with(torch.optim.AdamW, fused=True),
    "fused SGD": step_with(torch.optim.SGD, fused=True),
    "fused Adagrad": step_with(torch.optim.Adagrad, fused=True),
    "AdamW": step_with(torch.optim.AdamW),
    "data.mul_": _scale_data,
    "data.copy_": _copy_data,
    "data +=": _add_data,
    "numpy": _numpy,
    "data, rows exchanged": _swap_rows,
    "load_state_dict": _load,
    "load_state_dict(assign=True)": _assign,
}


@pytest.mark.parametrize("kind", ["whole", "spread gated"])
@pytest.mark.parametrize("name", WRITES)
def test_written_weights_are_used_at_the_next_call(name: str, kind: str) -> None:
    model, plain = accelerated(kind)
    before = run(plain)
    for each in (model, plain):
        WRITES[name](each)
    assert not torch.allclose(run(plain), before, rtol=1e-2, atol=1e-2)
    agree(model, plain)
    assert sparse_calls(model) == 2


def test_a_step_that_changes_a_single_number_is_seen_at_once() -> None:
    """Content alone would see it within many calls: the optimiser tells."""
    model, plain, x = wide()
    agree(model, plain, x)
    assert lazy.status(model).blocks[0].calls_to_see_all > 10
    for each in (model, plain):
        each[2].weight.grad = torch.zeros_like(each[2].weight)
        fired = int((each[0](x) > 0)[0].nonzero()[0])
        each[2].weight.grad[5, fired] = 1.0
        torch.optim.SGD([each[2].weight], lr=100.0, fused=True).step()
    agree(model, plain, x)


def test_one_written_number_is_seen_within_the_calls_that_status_says() -> None:
    model, plain, x = wide()
    fired = int((plain[0](x) > 0)[0].nonzero()[-1])
    limit = lazy.status(model).blocks[0].calls_to_see_all
    for row in (0, 63):
        for each in (model, plain):
            each[2].weight.data[row, fired] = float("nan")
        outputs = [run(model, x) for _ in range(limit + 1)]
        assert torch.equal(outputs[-1].isnan(), run(plain, x).isnan())
        assert int(outputs[-1].isnan().sum()) == (1 if row == 0 else 2)


@pytest.mark.parametrize("notify", ["refresh_", "eval", "training call"])
def test_what_nothing_announces_is_seen_when_asked(notify: str) -> None:
    model, plain, x = wide()
    fired = int((plain[0](x) > 0)[0].nonzero()[-1])
    agree(model, plain, x)
    for each in (model, plain):
        each[2].weight.data[63, fired] += 1e4
    if notify == "refresh_":
        receipt = lazy.refresh_(model)
        assert [change.action for change in receipt.changes] == ["packed"]
        assert [change.action for change in lazy.refresh_(model).changes] == ["current"]
    elif notify == "eval":
        model.train()
        model.eval()
    else:
        model(x)  # with gradients enabled
    torch.testing.assert_close(run(model, x), run(plain, x), rtol=1e-5, atol=1e-3)


def _new_up(model: nn.Module) -> None:
    torch.manual_seed(8)
    _of(model).up_proj = nn.Linear(D, H)


def _new_down(model: nn.Module) -> None:
    torch.manual_seed(8)
    _of(model).down_proj = nn.Linear(H, D)


def _new_gate(model: nn.Module) -> None:
    torch.manual_seed(8)
    _of(model).gate_proj = nn.Linear(D, H)


def _new_activation(model: nn.Module) -> None:
    _of(model).act_fn = nn.SiLU()


def _new_dropout(model: nn.Module) -> None:
    _of(model).dropout = nn.Hardtanh(-0.1, 0.1)  # type: ignore[assignment]


def _new_forward(model: nn.Module) -> None:
    up = _of(model).up_proj
    up.forward = lambda x: nn.Linear.forward(up, x) + 0.5  # type: ignore[method-assign]


def _new_class(model: nn.Module) -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    _of(model).down_proj.__class__ = Twice


def _hook(model: nn.Module) -> None:
    _of(model).up_proj.register_forward_hook(lambda module, args, y: y + 1.0)


def _pre_hook(model: nn.Module) -> None:
    _of(model).down_proj.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def _activation_hook(model: nn.Module) -> None:
    _of(model).act_fn.register_forward_hook(lambda module, args, y: y + 0.25)


def _parametrise(model: nn.Module) -> None:
    torch.nn.utils.parametrizations.weight_norm(_of(model).up_proj)
    _of(model).up_proj.parametrizations.weight.original0.data.mul_(3)  # type: ignore[union-attr, operator]


def _monte_carlo_dropout(model: nn.Module) -> None:
    _of(model).dropout.train()


CHANGES = {
    "up": _new_up,
    "down": _new_down,
    "activation": _new_activation,
    "dropout": _new_dropout,
    "forward": _new_forward,
    "class": _new_class,
    "hook": _hook,
    "pre-hook": _pre_hook,
    "activation's hook": _activation_hook,
    "weight norm": _parametrise,
    "dropout in training": _monte_carlo_dropout,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*CHANGES, "gate"])
def test_changed_modules_are_the_ones_that_run(name: str, kind: str) -> None:
    if name == "gate" and "gated" not in kind:
        pytest.skip("there is no gate to replace")
    model, plain = accelerated(kind)
    before = run(plain)
    for each in (model, plain):
        {**CHANGES, "gate": _new_gate}[name](each)
    torch.manual_seed(0)
    wanted = run(plain)
    assert not torch.allclose(wanted, before, rtol=1e-3, atol=1e-3)
    torch.manual_seed(0)
    torch.testing.assert_close(run(model), wanted, rtol=1e-5, atol=1e-5)
    block = lazy.status(model).blocks[0]
    assert block.sparse_calls == 1 and not block.last.startswith(("certified", "gather", "dense"))


@pytest.mark.parametrize("kind", ["whole", "spread", "spread gated"])
@pytest.mark.parametrize("target", ["up_proj", "down_proj"])
def test_an_adapter_works_trains_and_goes_again(kind: str, target: str) -> None:
    peft = pytest.importorskip("peft")
    model, plain = accelerated(kind)
    adapted = []
    for each in (model, plain):
        torch.manual_seed(4)
        with_adapter = peft.inject_adapter_in_model(
            peft.LoraConfig(target_modules=[target], r=4, init_lora_weights=False), each
        ).eval()
        adapted.append(with_adapter)
    agree(*adapted)
    assert adapted[0](X).requires_grad
    gradients = []
    for each in adapted:
        each(X).square().sum().backward()
        gradients.append([p.grad for name, p in each.named_parameters() if "lora" in name and p.grad is not None])
    assert len(gradients[0]) == 2
    torch.testing.assert_close(*gradients)
    assert "replaced or wrapped" in lazy.status(model).blocks[0].last
    merged = []
    for each in adapted:
        layer = getattr(_of(each), target)
        layer.merge()
        setattr(_of(each), target, layer.base_layer)
        merged.append(each)
    before = sparse_calls(model)
    agree(*merged)
    assert sparse_calls(model) == before + 1  # the merged weights are packed, and sparse execution goes on


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_afterwards_is_taken_in() -> None:
    model, plain = accelerated("whole")
    from torch.ao.quantization import quantize_dynamic

    quantised = [quantize_dynamic(each, {nn.Linear}) for each in (model, plain)]
    assert type(_of(quantised[0]).up_proj) is not nn.Linear
    agree(*quantised)
    assert not torch.allclose(run(quantised[0]), run(model), rtol=1e-6, atol=1e-6)
    agree(model, plain)


def test_a_conversion_goes_on_sparsely_in_the_new_dtype() -> None:
    model, plain = accelerated("whole")
    for each in (model, plain):
        each.to(torch.bfloat16)
    x = X.bfloat16()
    torch.testing.assert_close(run(model, x), run(plain, x), rtol=0.02, atol=0.02)
    assert sparse_calls(model) == 2
    for each in (model, plain):
        each.float()
    agree(model, plain)
    assert sparse_calls(model) == 3


def test_a_changed_setting_of_the_activation_is_seen() -> None:
    plain = nn.Sequential(nn.Linear(D, H), nn.Threshold(0.0, 0.0), nn.Linear(H, D)).eval()
    model = copy.deepcopy(plain)
    lazy.accelerate_(model, impl=IMPL)
    agree(model, plain)
    for each in (model, plain):
        each[1].threshold = 0.5
    for _ in range(execution.SETTINGS_EVERY):
        run(model)
    agree(model, plain)
    assert "settings" in lazy.status(model).blocks[0].last
    for each in (model, plain):
        each[1].threshold = 0.0
    lazy.refresh_(model)
    agree(model, plain)
    assert lazy.status(model).blocks[0].last.startswith(("certified", "gather"))


def test_products_of_fewer_bits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a processor would that has products in bfloat16: the certificate does not cover them."""
    exact, before = nn.functional.linear, torch.get_float32_matmul_precision()

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        narrow = torch.get_float32_matmul_precision() == "medium"
        return exact(x.bfloat16().float(), weight.bfloat16().float(), bias) if narrow else exact(x, weight, bias)

    plain, model = build("whole"), build("whole")
    lazy.accelerate_(model, impl=IMPL)
    monkeypatch.setattr(nn.functional, "linear", linear)
    try:
        torch.set_float32_matmul_precision("medium")
        for _ in range(execution.SETTINGS_EVERY):
            run(model)
        assert torch.equal(run(model), run(plain))
        assert "products round to bf16" in lazy.status(model).blocks[0].last
        with pytest.raises(NoBlocksError, match="set_float32_matmul_precision"):
            lazy.accelerate_(build("whole"), impl="gather")
        torch.set_float32_matmul_precision("highest")
        lazy.refresh_(model)
        agree(model, plain)
        assert lazy.status(model).blocks[0].last.startswith(("certified", "gather"))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("moment", ["before packing", "after packing"])
def test_a_write_while_packing_is_not_taken_for_current(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: another thread writes between the reading of the weights and the noting of what they were."""
    model, plain = accelerated("whole")
    real, written = current.pack, []

    def write() -> None:
        if not written:
            written.append(True)
            thread = threading.Thread(target=_scale_data, args=(model,))
            thread.start()
            thread.join()

    def pack_and_be_disturbed(*args: object) -> object:
        if moment == "before packing":
            write()
        packed = real(*args)  # type: ignore[arg-type]
        if moment == "after packing":
            write()
        return packed

    monkeypatch.setattr(current, "pack", pack_and_be_disturbed)
    for each in (model, plain):
        _load(each)
    run(model)
    assert written
    _scale_data(plain)
    agree(model, plain)


def test_tables_are_exchanged_with_the_weights_they_belong_to() -> None:
    """A review that finds a new table after other weights were packed must not bring the old weights back."""
    model, plain = accelerated("whole")
    (one,) = executions(model)
    old = one.current.now()
    for each in (model, plain):
        _scale_data(each)
    agree(model, plain)
    new = one.current.now()
    assert new is not old
    one.following._calls = 10**6
    assert one._review(old, X, 3) is None and one.current.state is new
    agree(model, plain)


def test_threads_that_run_while_weights_change_end_with_the_new_ones() -> None:
    model, plain = accelerated("whole")
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            run(model)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        for each in (model, plain):
            with torch.no_grad():
                _of(each).up_proj.weight.mul_(-1.0 if number % 2 else 0.9)
    stop.set()
    for thread in threads:
        thread.join()
    agree(model, plain)
    lazy.refresh_(model)
    agree(model, plain)


def test_weights_that_change_at_every_call_are_not_packed_at_every_call() -> None:
    model, plain = accelerated("whole")
    for number in range(60):
        for each in (model, plain):
            with torch.no_grad():
                _of(each).down_proj.weight.add_(0.01 * number)
        agree(model, plain)
    assert lazy.status(model).blocks[0].repacked < 30
    for _ in range(current.LONGEST_WAIT + 10):
        run(model)
    before = sparse_calls(model)
    agree(model, plain)
    assert sparse_calls(model) == before + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traces_and_function_transforms_take_the_dense_path() -> None:
    model, plain = accelerated("whole")
    wanted = run(plain)
    with torch.no_grad():
        traced = torch.jit.trace(model, X)
        assert torch.equal(traced(X), wanted) and "lazyneuron" not in str(traced.inlined_graph)
        assert torch.allclose(torch.vmap(model)(X), wanted, atol=1e-6)
        _, tangent = torch.func.jvp(model, (X,), (torch.ones_like(X),))
        _, expected = torch.func.jvp(plain, (X,), (torch.ones_like(X),))
        assert torch.allclose(tangent, expected, atol=1e-6) and float(tangent.abs().max()) > 0
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
            assert torch.autograd.forward_ad.unpack_dual(model(dual)).tangent is not None
    swapped = {key: 2 * value for key, value in plain.state_dict().items()}
    with torch.no_grad():
        got = torch.func.functional_call(model, swapped, (X,))
        torch.testing.assert_close(got, torch.func.functional_call(plain, swapped, (X,)), rtol=1e-5, atol=1e-5)
    agree(model, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_runs_the_modules_as_they_are_now(kind: str) -> None:
    model, plain = accelerated(kind)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    agree(compiled, plain)
    for each in (model, plain):
        _scale_data(each)
    agree(compiled, plain)
    for each in (model, plain):
        _new_down(each)
    agree(compiled, plain)
    torch._dynamo.reset()


def test_status_says_what_ran_and_why_not() -> None:
    model, _ = accelerated("whole")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(X)
    model(X)
    model.train()(X)
    model.eval()
    run(model, X.double().float())
    with pytest.raises(RuntimeError):
        run(model, X.double())
    status = lazy.status(model)
    (block,) = status.blocks
    assert block.block == "0" and block.calls == 6 and block.sparse_calls == 2
    assert block.fallbacks == {
        "autocast": 1,
        "a gradient is wanted": 1,
        "training mode": 1,
        "an input of torch.float64 where the weights are torch.float32": 1,
    }
    if IMPL == "native":
        fired = (_of(model).up_proj(X) > 0).float().mean()
        assert block.fired == pytest.approx(float(fired)) and block.computed is not None
        assert block.fired <= block.computed <= 1
    text = str(status)
    assert "autocast" in text and "training mode" in text
    with pytest.raises(lazy.NoBlocksError if hasattr(lazy, "NoBlocksError") else ValueError, match="no acceleration"):
        lazy.status(build("whole"))


def test_refresh_says_what_it_cannot_take_in() -> None:
    model, plain = accelerated("whole")
    for each in (model, plain):
        _new_up(each)
    (change,) = lazy.refresh_(model).changes
    assert change.action == "dense" and "up_proj was replaced" in change.reason
    agree(model, plain)
    model, plain = accelerated("whole")
    _of(model).down_proj.weight.data[0, 0] = float("nan")
    (change,) = lazy.refresh_(model).changes
    assert change.action == "dense" and "NaN" in change.reason


def test_restore_after_every_change_gives_the_plain_model() -> None:
    for kind in KINDS:
        plain = build(kind)
        model = copy.deepcopy(plain)
        receipt = lazy.accelerate_(model, impl=IMPL)
        for each in (model, plain):
            _scale_data(each)
            _new_down(each)
        lazy.restore_(model, receipt)
        assert torch.equal(run(model), run(plain))
        assert not any("train" in module.__dict__ or "forward" in module.__dict__ for module in model.modules())


# changes of every number at once, of whose words only certain bits differ
WHOLE: dict[str, Callable[[Tensor], object]] = {
    "sign": lambda t: t.neg_(),
    "double": lambda t: t.mul_(2),
    "power of two": lambda t: t.mul_(2.0**-8),
    "magnitude": lambda t: t.abs_(),
    "order": lambda t: t.copy_(t.flip(0).clone()),
    "neighbours": lambda t: t.copy_(t.view(-1, 2).flip(1).reshape(t.shape).clone()),
    "every other sign": lambda t: t.view(-1)[::2].neg_(),
    "top bit of words": lambda t: t.view(torch.int32).bitwise_xor_(-(2**31)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", WHOLE)
def test_a_fingerprint_sees_changes_of_every_number_at_once(change: str, dtype: torch.dtype) -> None:
    weight = torch.randn(96, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = fingerprint.Fingerprint([weight])
    assert seen.holds()
    WHOLE[change](weight)
    assert not seen.holds()
    assert not any(seen.holds_in_part() for _ in range(seen.turns))  # in every part of it


@pytest.mark.parametrize("native", [True, False])
def test_a_fingerprint_sees_every_single_change(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native and not load.status().available:
        pytest.skip("the native kernels are not built")
    if not native:
        monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(40, 50, generator=generator)
    parameters = [
        torch.randn(70, 33, generator=generator),
        torch.randn(9, generator=generator),
        torch.randn(64, 48, generator=generator).bfloat16().t(),
        base[:, 3:20],
        torch.randn(5000, generator=generator),
    ]
    assert all(fingerprint.can_be_read(p) for p in parameters)
    assert not fingerprint.can_be_read(torch.randn(8, 8)[::2, ::2])
    seen = fingerprint.Fingerprint(parameters)
    assert seen.holds() and all(seen.holds_in_part() for _ in range(2 * seen.turns))
    for p in parameters:
        for _ in range(25):
            at = tuple(int(torch.randint(n, (1,), generator=generator)) for n in p.shape)
            before = p[at].clone()
            p[at] = before + before.abs() * torch.finfo(p.dtype).eps + 1e-30
            changed = not torch.equal(p[at], before)
            assert seen.holds() != changed
            assert all(seen.holds_in_part() for _ in range(seen.turns)) != changed
            assert all(seen.holds_in_part(3) for _ in range(-(-seen.turns // 3))) != changed
            p[at] = before
    base[0, 0] = 7.0  # beside the columns that are looked at
    assert seen.holds()


def test_executions_survive_pickling() -> None:
    import pickle

    model, plain = accelerated("whole")
    twin = pickle.loads(pickle.dumps(model))
    _scale_data(twin)
    _scale_data(plain)
    agree(twin, plain)
    assert isinstance(executions(twin)[0], BlockExecution) and sparse_calls(twin) == 2
