"""Accelerating a model for a GPU: with the kernels on one where there is one, else in Triton's interpreter."""

from __future__ import annotations

import copy
import pickle
import re
import statistics
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate import plan
from lazyneuron.accelerate.gpu import costs, prepare
from lazyneuron.accelerate.gpu.costs import BUCKETS, Costs, Shape
from lazyneuron.accelerate.gpu.execution import STALE, GpuExecution
from lazyneuron.accelerate.gpu.packing import overflow_limit
from lazyneuron.accelerate.gpu.timing import Mode, least_us
from lazyneuron.accelerate.quantised.execution import accelerated_blocks, every_neuron
from lazyneuron.core.errors import ConfigError, ImplUnavailable, NoBlocksError
from lazyneuron.ops.gpu_mlp import available
from lazyneuron.ops.gpu_mlp.tiles import Tiles
from tests.accelerate.comparison import check_close
from tests.gpu import DEVICE, needs_gpu, needs_triton, quiet
from tests.kernels import needs_kernels

pytestmark = [needs_triton, quiet]
READ_EVERY = 6  # instead of 64, in the test of what follows densities


class Gated(nn.Module):
    def __init__(self, d: int = 64, h: int = 96) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(d, h), nn.Linear(d, h), nn.Linear(h, d)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))


def model(*, gated: bool = False, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    made = Gated() if gated else nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    with torch.no_grad():
        (made.gate if gated else made[0]).bias -= 0.5
    return made.to(DEVICE, dtype).eval().requires_grad_(False)


def inputs(tokens: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(tokens, 64, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)


def by_hand(net: nn.Module, x: Tensor) -> Tensor:
    """A plain model's output from its parameters, whatever stands for its modules' forward."""
    return F.linear(F.relu(F.linear(x, net[0].weight, net[0].bias)), net[2].weight, net[2].bias)


def run_of(accelerated: nn.Module) -> GpuExecution:
    (run,) = accelerated_blocks(accelerated)
    assert isinstance(run, GpuExecution)
    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gated", [False, True])
def test_the_output_is_that_of_the_model(gated, dtype):
    net, x = model(gated=gated, dtype=dtype), inputs(dtype=dtype)
    wanted, wanted_of_many = net(x), net(inputs(17, dtype))
    before = {name: p.clone() for name, p in net.state_dict().items()}
    receipt = lazy.accelerate_(net, [x], impl="triton")
    check_close(net(x), wanted, length=160, roundings=2)
    assert torch.equal(net(inputs(17, dtype)), wanted_of_many)  # above 16 tokens dense runs
    block = lazy.status(net).blocks[0]
    assert (block.last, block.sparse_calls, block.calls) == ("dense", 1, 2)
    first = net.gate if gated else net[0]
    fires = F.linear(x, first.weight, first.bias) > 0
    assert block.fired == pytest.approx(float(fires.float().mean()), abs=0.02)
    lazy.restore_(net, receipt)
    assert torch.equal(net(x), wanted)
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())


def test_what_runs_when():
    net, x = model(), inputs()
    wanted = net(x)
    lazy.accelerate_(net, impl="triton")
    run = run_of(net)

    def last(call: Callable[[], object]) -> str:
        call()
        return str(run.last)

    assert last(lambda: net(x)) == "triton"
    assert last(lambda: net(x.reshape(1, 3, 64))) == "triton"
    assert last(lambda: net(x.clone().requires_grad_())) == "a gradient is wanted"
    assert "empty" in last(lambda: net(x[:0]))
    with pytest.raises(RuntimeError):
        net(x.double())
    assert "float64" in str(run.last)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert last(lambda: net(x)) == "autocast"
    assert last(lambda: torch.func.vmap(net)(x)) == "a function transform or a trace"
    net.train()
    assert last(lambda: net(x)) == "training mode"
    net.eval()
    assert last(lambda: net(x)) == "triton"
    with every_neuron(net):
        assert last(lambda: net(x)) == "dense"
    handle = net[0].register_forward_hook(lambda *_: None)
    assert "hooks of 0 changed" in last(lambda: net(x))
    handle.remove()
    check_close(net(x), wanted, length=160)


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("layer", [0, 2])
def test_changed_weights_are_packed_anew(layer, name):
    net, x = model(), inputs()
    lazy.accelerate_(net, impl="triton")
    net(x)
    with torch.no_grad():
        getattr(net[layer], name).mul_(1.5)
    check_close(net(x), by_hand(net, x), length=160)
    assert lazy.status(net).blocks[0].last == "triton" and lazy.status(net).blocks[0].repacked == 1


def test_writes_that_nothing_announces_are_found_by_refresh():
    net, x = model(), inputs()
    lazy.accelerate_(net, impl="triton")
    net(x)
    assert lazy.refresh_(net).changes[0].action == "current"
    net[2].weight.data.mul_(2)
    assert lazy.refresh_(net).changes[0].action == "packed"
    check_close(net(x), by_hand(net, x), length=160)
    net[2].weight.data[0, 0] = torch.nan
    change = lazy.refresh_(net).changes[0]
    assert change.action == "dense" and "NaN or infinity" in change.reason
    assert net(x).isnan().any() and "NaN or infinity" in lazy.status(net).blocks[0].last


def test_weights_that_move_run_densely_and_say_so():
    net = model()
    lazy.accelerate_(net, impl="triton")
    net.to("meta")
    assert net(inputs().to("meta")).shape == (3, 64)
    assert "moved from" in lazy.status(net).blocks[0].last and "accelerate_ again" in lazy.status(net).blocks[0].last


def test_settings_and_swapped_layers_are_noticed():
    net, x = model(), inputs()
    net[1] = nn.Threshold(0.0, 0.0)
    lazy.accelerate_(net.eval(), impl="triton")
    net[1].threshold = 0.5
    net.eval()
    net(x)
    assert "Settings" in lazy.status(net).blocks[0].last
    other = model()
    lazy.accelerate_(other, impl="triton")
    run = run_of(other)
    other[0] = nn.Linear(64, 96).to(DEVICE)
    assert "was replaced" in str(run.standing())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_run_by_themselves(copied):
    net, x = model(), inputs()
    lazy.accelerate_(net, impl="triton")
    wanted = net(x)
    other = copied(net)
    with torch.no_grad():
        net[2].weight.zero_()
    check_close(other(x), wanted, length=160)
    assert lazy.status(other).blocks[0].last == "triton"


def test_a_compiled_model_holds_one_operator():
    net, x = model(gated=True), inputs()
    wanted = net(x)
    lazy.accelerate_(net, impl="triton")
    graphs: list[torch.fx.GraphModule] = []

    def look(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    check_close(torch.compile(net, backend=look, fullgraph=True)(x), wanted, length=160)
    assert "execute_block" in graphs[0].code and run_of(net).last is not None


def test_a_saved_acceleration_is_made_again(tmp_path):
    net, x = model(), inputs()
    lazy.accelerate_(net, impl="triton")
    lazy.save(net, tmp_path / "net")
    loaded = lazy.load_(model(), tmp_path / "net")
    assert loaded is not None
    other = model()
    lazy.load_(other, tmp_path / "net")
    check_close(other(x), net(x), length=160)
    assert lazy.status(other).blocks[0].last == "triton"


@needs_kernels  # quantising is theirs
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("gated", [False, True])
def test_quantised_blocks(weights, gated):
    net, x = model(gated=gated), inputs(5)
    lazy.accelerate_(net, impl="triton", weights=weights)
    got = net(x)
    (run,) = accelerated_blocks(net)
    assert run.last == "quantised" and 0.05 < lazy.status(net).blocks[0].fired < 0.6
    first = (net.gate if gated else net[0]).dequantised().double()
    z = x.double() @ first.T + (net.gate if gated else net[0]).bias
    h = z.relu()
    if gated:
        h = h * (x.double() @ net.up.dequantised().double().T + net.up.bias)
    down = net.down if gated else net[2]
    wanted = h @ down.dequantised().double().T + down.bias
    check_close(got, wanted.to(x.dtype), length=160)
    other = copy.deepcopy(net)
    assert torch.equal(other(x), got)
    with every_neuron(net):
        check_close(net(x), got, length=160 * 64)  # layers one by one, on a CPU with inputs of 16 bits
        assert "every neuron" in lazy.status(net).blocks[0].last


def made_up(dense_us: float, fixed_us: float, slope_us: float) -> Costs:
    every: dict[Mode, float] = {"eager": 30.0, "captured": 0.0}
    return Costs(
        dense_us={mode: (dense_us + 0 * more,) * BUCKETS for mode, more in every.items()},
        sparse_us={mode: ((fixed_us + more, slope_us),) * BUCKETS for mode, more in every.items()},
        tiles=(Tiles(inputs=64, columns=32),) * BUCKETS,
    )


def auto(net: nn.Module, monkeypatch: pytest.MonkeyPatch, known: Costs, batches: Sequence[Tensor] | None) -> object:
    """``impl="auto"`` with these costs: what a CUDA model gets, whatever device runs the kernels here."""
    monkeypatch.setattr(prepare, "runs_on_gpu", lambda block, impl: True)
    monkeypatch.setattr("lazyneuron.accelerate.transform.runs_on_gpu", lambda block, impl: True)
    monkeypatch.setattr(costs, "costs_of", lambda shape: known)
    return lazy.accelerate_(net, batches)


def test_dense_runs_where_it_is_faster(monkeypatch):
    net, x = model(), inputs()
    receipt = auto(net, monkeypatch, made_up(dense_us=50, fixed_us=10, slope_us=20), [x])
    details = receipt.changes[0].details
    union = details["union_density"]
    fires = F.linear(x, net[0].weight, net[0].bias) > 0
    assert union["1"] == pytest.approx(float(fires.float().mean()))
    assert union["4"] == pytest.approx(float(fires.any(0).float().mean()))
    # captured: 10 + 20 u < 47.5 always; eager: 40 + 20 u < 47.5 for u < .375
    assert set(details["path_by_tokens"].values()) == {"triton", "dense"}
    assert details["path_by_tokens"]["<= 16"] == "triton" and details["path_by_tokens"]["> 16"] == "dense"
    wanted = {f"<= {2**k}": "triton" if union[str(2**k)] < 0.375 else "dense" for k in range(BUCKETS)}
    assert {k: v for k, v in details["path_by_tokens_eager"].items() if k in wanted} == wanted
    net(x[:1])
    assert str(run_of(net).last) == wanted["<= 1"]
    net(x)
    assert str(run_of(net).last) == wanted["<= 4"]


def test_a_block_that_cannot_win_is_left_alone(monkeypatch):
    net = model()
    receipt = auto(net, monkeypatch, made_up(dense_us=10, fixed_us=10, slope_us=20), None)
    assert receipt.changes[0].action == "dense" and not accelerated_blocks(net)


def test_the_path_follows_what_fires(monkeypatch):
    """With 0 + 100 u us against 50 us dense: a density above .475 is left, and found again when it falls."""
    net, x = model(), inputs(1)
    free = Costs(
        dense_us={"eager": (50.0,) * BUCKETS, "captured": (50.0,) * BUCKETS},
        sparse_us={"eager": ((0.0, 100.0),) * BUCKETS, "captured": ((0.0, 100.0),) * BUCKETS},
        tiles=(Tiles(inputs=64, columns=32),) * BUCKETS,
    )
    auto(net, monkeypatch, free, None)
    run = run_of(net)
    monkeypatch.setattr("lazyneuron.accelerate.gpu.execution.PROBE_EVERY", 4)
    monkeypatch.setattr("lazyneuron.accelerate.gpu.densities.READ_EVERY", READ_EVERY)
    net[0].bias.data.fill_(100.0)
    for _ in range(READ_EVERY + 2):
        net(x)
    assert run.densities.union[0] == 1.0 and str(run.last) == "dense"
    net[0].bias.data.fill_(-100.0)
    for _ in range(3 * READ_EVERY):
        net(x)
    assert run.densities.union[0] < 0.475 and str(run.last) == "triton"


def test_costs_are_lines_through_what_was_timed():
    """A timer that says 7 us for dense, and for sparse 2 us more for each twentieth of the neurons that fire."""
    shape = Shape(d_in=64, d_hidden=2000, d_out=32, gated=True, dtype=torch.float32, device=torch.device("cpu"))
    blocks: list[costs.Synthetic] = []

    class Watched(costs.Synthetic):
        def __init__(self, shape: Shape) -> None:
            super().__init__(shape)
            blocks.append(self)

    def timer(calls: Sequence[Callable[[], object]], mode: Mode) -> list[float]:
        single = statistics.NormalDist().cdf(float(blocks[-1].bias[0]))
        times = [7.0, 5.0 + 40 * (1 - (1 - single) ** timer.tokens)]
        return times[-len(calls) :] if len(calls) < 3 else [1.0] * len(calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "Synthetic", Watched)
        original = torch.randn

        def seen(*size: int, **others: object) -> Tensor:
            if len(size) == 2 and size[1] == 64 and size[0] <= 16:
                timer.tokens = size[0]
            return original(*size, **others)

        patch.setattr(torch, "randn", seen)
        timer.tokens = 1
        found = costs.measure(shape, timer=timer)
    for mode in ("eager", "captured"):
        assert found.dense_us[mode] == (7.0,) * BUCKETS
        for fixed, slope in found.sparse_us[mode]:
            assert fixed == pytest.approx(5.0, abs=1e-3) and slope == pytest.approx(40.0, rel=1e-3)
    assert found.choose("eager", 0.01) == (True,) * BUCKETS
    assert found.choose("eager", 0.1) == (False,) * BUCKETS


def test_synthetic_blocks_fire_as_asked_and_agree():
    shape = Shape(d_in=64, d_hidden=4000, d_out=32, gated=False, dtype=torch.float32, device=DEVICE)
    block = costs.Synthetic(shape)
    for union, tokens in ((0.3, 1), (0.3, 8)):
        x = torch.randn(tokens, 64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        h = torch.relu(torch.nn.functional.linear(x, block.firing(union, tokens).first, block.bias))
        assert float((h > 0).any(0).float().mean()) == pytest.approx(union, abs=0.05)
    small = costs.Synthetic(Shape(d_in=64, d_hidden=40, d_out=32, gated=True, dtype=torch.float32, device=DEVICE))
    x = inputs(1)
    wanted = small.firing(0.3, 1).dense(x)
    check_close(small.sparse(Tiles(inputs=64, columns=32))(x), wanted, length=104)


def test_times_are_of_one_call():
    calls: list[int] = []
    times = least_us([lambda: calls.append(1), lambda: calls.append(2)], "eager", rounds=2)
    assert len(times) == 2 and all(t > 0 for t in times) and set(calls) == {1, 2}


def test_the_limit_keeps_up_finite():
    up = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert overflow_limit(up, None, torch.float16) == pytest.approx((0.99 * 65504 / 5) ** 2)
    assert overflow_limit(up, torch.tensor([0.0, -64000.0]), torch.float16) < (900 / 5) ** 2
    assert overflow_limit(up * 0, None, torch.float16) > 1e37
    assert overflow_limit(up, None, torch.float32) <= 3e38


def test_bad_input_in_one_sentence(monkeypatch):
    with pytest.raises(ConfigError, match="no slack to calibrate"):
        lazy.accelerate_(model(), [inputs()], impl="triton", guarantee="calibrated")
    spread = model()
    spread[2].to("meta")
    found = lazy.find_blocks(model())[0]
    assert "on several devices" in str(plan.why_dense(_moved(found, "meta")))
    monkeypatch.setattr(available, "interprets", lambda: False)
    monkeypatch.setattr(available.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoBlocksError, match=r"in Triton's interpreter|is not installed"):
        lazy.accelerate_(model(), impl="triton")
    if DEVICE.type == "cpu":
        with pytest.raises(ImplUnavailable, match="in Triton's interpreter"):
            lazy.accelerate_(model(), impl="triton", weights="int8")


class OnCuda(nn.Parameter):
    """Says that it is on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capability", "sentence"),
    [
        (None, r"Triton is not installed.*pip install"),
        ((7, 0), r"need compute capability 8\.0, and Tesla V100 has 7\.0"),
    ],
)
def test_a_gpu_that_cannot_run_the_kernels(monkeypatch, capability, sentence):
    both = nn.Sequential(model(), model()).eval()
    found = lazy.find_blocks(both)
    for block in found[:1]:
        for site in block.linears:
            site.module._parameters["weight"] = OnCuda(site.module.weight.detach(), requires_grad=False)
            site.module._parameters["bias"] = OnCuda(site.module.bias.detach(), requires_grad=False)
    if capability is None:
        monkeypatch.setattr(available.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla V100")
    available._why_not_this.cache_clear()
    try:
        with pytest.raises(NoBlocksError, match=sentence):
            lazy.accelerate_(both, blocks=found[:1])
        (skipped,) = plan.plan_acceleration(both, blocks=found).skipped
        assert skipped.block == "0" and re.search(sentence, skipped.reason)
    finally:
        available._why_not_this.cache_clear()


def test_a_calibrated_slack_is_refused_on_a_gpu(monkeypatch):
    monkeypatch.setattr("lazyneuron.accelerate.transform.runs_on_gpu", lambda block, impl: True)
    with pytest.raises(ConfigError, match="no slack to calibrate; use guarantee='exact'"):
        lazy.accelerate_(model(), [inputs()], guarantee="calibrated")


def _moved(block: lazy.MLPBlock, device: str) -> lazy.MLPBlock:
    block.down.module.to(device)
    return block


def test_a_block_on_a_gpu_refuses_implementations_of_cpus(monkeypatch):
    block = lazy.find_blocks(model())[0]
    weight = block.up.module.weight
    monkeypatch.setattr(type(block.up), "weight", property(lambda site: weight.to("meta")))
    assert not prepare.runs_on_gpu(block, "auto") and prepare.runs_on_gpu(block, "triton")


@needs_gpu
def test_on_a_gpu_a_graph_replays_what_was_captured():
    net, x = model(gated=True, dtype=torch.bfloat16), inputs(1, torch.bfloat16)
    lazy.accelerate_(net, impl="triton")
    net(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = net(x)
    for seed in range(3):
        x.copy_(torch.randn(1, 64, generator=torch.Generator().manual_seed(seed)))
        graph.replay()
        with every_neuron(net):
            check_close(y, net(x), length=160, roundings=2)
    with torch.no_grad():
        net.down.weight.mul_(2)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        net(x)
    assert run_of(net).last == STALE


@needs_gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_on_a_gpu_compiled_models_give_the_same(mode):
    net, x = model(gated=True, dtype=torch.bfloat16), inputs(1, torch.bfloat16)
    wanted = net(x)
    lazy.accelerate_(net, impl="triton")
    compiled = torch.compile(net, mode=mode)
    for _ in range(4):
        check_close(compiled(x), wanted, length=160, roundings=2)
    assert lazy.status(net).blocks[0].sparse_calls > 0


@needs_gpu
def test_on_a_gpu_auto_measures_and_refuses_cpu_names():
    net = model(dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="runs on CPUs"):
        lazy.accelerate_(net, impl="native")
    try:
        receipt = lazy.accelerate_(net, [inputs(4, torch.bfloat16)])
    except NoBlocksError:
        return
    assert receipt.changes[0].action in ("dense", "accelerated")


@needs_gpu
@pytest.mark.parametrize("rest", ["keep", "int8", "int4"])
def test_on_a_gpu_quantised_layers_run_one_by_one_too(rest):
    net, x = nn.Sequential(nn.Linear(64, 64), model(), nn.Linear(64, 128)).to(DEVICE).eval(), inputs(5)
    wanted = net(x)
    lazy.accelerate_(net, weights="int8", rest=rest)
    assert (net(x) - wanted).norm() / wanted.norm() < (0.2 if rest == "int4" else 0.05)


@needs_gpu
def test_on_a_gpu_a_model_that_was_quantised_on_a_cpu_runs_after_its_move():
    net = model().cpu()
    lazy.accelerate_(net, weights="int8")
    x = inputs(2)
    wanted = net(x.cpu())
    assert (net.to(DEVICE)(x).cpu() - wanted).norm() / wanted.norm() < 1e-3
