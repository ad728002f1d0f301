"""Activations: values and slopes at the hard places, gradients, intervals against a dense scan, and the search."""

import copy
import math

import pytest
import torch
from torch import nn

from lazyneuron.blocks import Activation, find_blocks
from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.induce import FATReLU, JSReLU, ShiftedActivation, SquaredReLU, StatisticalTopK, Thresholded, TopK
from tests.induce.networks import inputs

POINTS = [-1e4, -257.0, -0.0, 0.0, 1.0, 4.0, 300.0]
ELEMENTWISE = [
    JSReLU(),
    JSReLU(0.0),
    JSReLU(0.3),
    JSReLU(0.5, 2.0),
    SquaredReLU(),
    Thresholded("silu", 0.1),
    Thresholded("gelu", 0.3),
    Thresholded("gelu_tanh", 0.05),
    FATReLU(0.5),
    FATReLU(-0.5),
    FATReLU(0.5, learnable=True),
    *(
        ShiftedActivation(base, dx=dx, dy=dy)
        for base in ("squared_relu", "jsrelu")
        for dx in (1.6, -1.6)
        for dy in (0, 1.6)
    ),
]


def jsrelu_by_hand(x: float, mix: float, cap: float) -> tuple[float, float]:
    if x <= 0:
        return 0.0, 0.0
    if x <= cap:
        return x + mix / 2 * x * x, 1 + mix * x
    return cap + mix / 2 * cap * cap + (1 + mix * cap) * (x - cap), 1 + mix * cap


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("mix", "cap"), [(0.0, None), (0.3, None), (1.0, None), (1.0, 4.0), (0.3, 2.0)])
def test_jsrelu_values_and_slopes(dtype, mix, cap):
    module, x = JSReLU(mix, cap), torch.tensor(POINTS, dtype=dtype, requires_grad=True)
    y = module(x)
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    wanted = [jsrelu_by_hand(float(p), mix, math.inf if cap is None else cap) for p in x.detach()]
    limit = 4 * torch.finfo(dtype).eps
    for got, side in ((y, 0), (slope, 1), (module.derivative(x), 1)):
        expected = torch.tensor([w[side] for w in wanted], dtype=torch.float64)
        assert got.dtype == dtype
        torch.testing.assert_close(got.detach().double(), expected, rtol=limit, atol=0)
    assert mix == 0 or not torch.signbit(y[x <= 0]).any()


def test_jsrelu_without_mix_is_relu_bitwise():
    x = torch.tensor([-math.inf, -1.0, -0.0, 0.0, 2.0, math.inf], requires_grad=True)
    y, wanted = JSReLU(0.0)(x), torch.relu(x)
    assert torch.equal(y, wanted)
    ours, theirs = (torch.autograd.grad(t, x, torch.ones_like(t))[0] for t in (y, wanted))
    assert torch.equal(ours, theirs)
    assert torch.isnan(JSReLU()(torch.tensor(math.nan)))


def test_jsrelu_gradients_and_what_it_keeps():
    x = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x + 0.1 * x.sign()).requires_grad_()
    for module in (JSReLU(), JSReLU(0.3), JSReLU(0.7, 0.9)):
        assert torch.autograd.gradcheck(module, x)
        assert torch.autograd.gradgradcheck(module, x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        JSReLU()(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]
    each = torch.func.vmap(torch.func.grad(lambda row: JSReLU()(row).sum()))(x.detach().reshape(4, 10))
    torch.testing.assert_close(each.flatten(), JSReLU().derivative(x.detach()))


def test_jsrelu_carries_its_mix():
    module = JSReLU(0.1)
    module.mix = 0.3
    fresh = JSReLU()
    fresh.load_state_dict(module.half().state_dict())
    assert (fresh.mix, copy.deepcopy(module).mix) == (0.3, 0.3)
    for wrong in ({"mix": -1.0}, {"mix": math.inf}, {"cap": 0.0}, {"cap": "2"}, {"cap": True}):
        with pytest.raises(ConfigError, match=r"`(mix|cap)` is a .*number"):
            JSReLU(**wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch.compile itself
def test_jsrelu_compiles_without_a_break():
    module, x = JSReLU(0.3), inputs().requires_grad_()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for mix in (0.3, 0.4, 0.5):
        module.mix = mix
        ours, wanted = compiled(x), module(x)
        torch.testing.assert_close(ours, wanted)
        torch.testing.assert_close(torch.autograd.grad(ours.sum(), x), torch.autograd.grad(wanted.sum(), x))


@pytest.mark.parametrize("module", ELEMENTWISE, ids=repr)
def test_intervals_against_a_scan(module):
    x = torch.arange(-4000, 4001, dtype=torch.float64) / 1000
    x = x[((x.abs() - 0.1).abs() > 1e-9) & ((x.abs() - 3.1).abs() > 1e-9)]  # the shifted ends are not binary fractions
    leaf = x.clone().requires_grad_()
    slope = torch.autograd.grad(module(leaf).sum(), leaf)[0]
    if not isinstance(module, ShiftedActivation):
        zero_alone = (x == 0) & (slope != 0)
        assert torch.equal(module.zero_interval.contains(x) | zero_alone, module(x) == 0)
    assert bool((module(x)[module.zero_interval.contains(x)] == 0).all())
    assert torch.equal(module.flat_interval.contains(x), slope == 0)
    torch.testing.assert_close(module.derivative(x), slope)
    spec = module.activation_spec()
    assert spec.zero == module.zero_interval
    torch.testing.assert_close(spec(x), module(x).detach())


def test_shifted_separates_flat_from_zero():
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    for dx in (1.6, -1.6):
        for dy in (1.6, -1.6):
            module = ShiftedActivation(dx=dx, dy=dy)
            left, right = torch.relu(-(x - dx) - 1.5), torch.relu(x - dx - 1.5)
            torch.testing.assert_close(module(x), right**2 - left**2 + dy)
            assert module.zero_interval.empty
            assert (module.flat_interval.low, module.flat_interval.high) == pytest.approx((dx - 1.5, dx + 1.5))
    assert not ShiftedActivation(dy=0).zero_interval.empty
    for wrong in ({"half_interval": 0.0}, {"dx": math.nan}, {"dy": math.inf}):
        with pytest.raises(ConfigError, match="shifted"):
            ShiftedActivation(**wrong)


def test_flat_intervals_of_the_known_kinds():
    x = torch.arange(-8000, 8001, dtype=torch.float64) / 1000 + 5e-4
    for kind in ("relu", "relu6", "hardswish", "hardsigmoid", "squared_relu"):
        activation = Activation(kind)
        assert torch.equal(activation.flat.contains(x), activation.derivative(x) == 0), kind
    assert Activation("gelu").flat.empty


def test_learnable_shift_follows_its_box():
    module = FATReLU(0.5, learnable=True, bandwidth=0.2)
    x = torch.tensor([0.3, 0.45, 0.55, 0.7], requires_grad=True)
    module(x).backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert module.shift.grad.item() == pytest.approx(-(2 + 3) * 0.5 / 0.2)
    assert torch.equal(x.grad, torch.tensor([0.0, 0.0, 3.0, 4.0]))
    assert torch.isnan(FATReLU(0.5)(torch.tensor(math.nan)))
    with torch.no_grad():
        module.shift.fill_(0.25)
    assert module.activation_spec() == Activation("fatrelu", (0.25,))


@pytest.mark.parametrize("module", ELEMENTWISE, ids=repr)
def test_the_search_knows_them(module):
    model = nn.Sequential(nn.Linear(6, 24), module, nn.Linear(24, 6)).eval()
    assert [block.activation for block in find_blocks(model)] == [module.activation_spec()]


def test_topk_against_sorting():
    x = inputs(rows=50, d=20).requires_grad_()
    y = TopK(3)(x)
    cut = x.sort(dim=-1, descending=True).values[:, 2:3]
    assert torch.equal(y, torch.where((x >= cut) & (x > 0), x, 0.0))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (x > 0).float())
    plain = TopK(3, straight_through=False)(x)
    assert torch.equal(plain, y)
    assert torch.equal(torch.autograd.grad(plain.sum(), x)[0], (y > 0).float())


def test_topk_at_ties_and_edges():
    assert int((TopK(2)(torch.ones(4, 7)) != 0).sum()) == 4 * 2
    assert torch.equal(TopK(5)(-torch.ones(2, 5)), torch.zeros(2, 5))
    assert TopK(2)(torch.ones(0, 5)).shape == (0, 5)
    with pytest.raises(ShapeError, match="6 neurons but got 5"):
        TopK(6)(torch.ones(2, 5))
    for wrong in (0, 1.5, True):
        with pytest.raises(ConfigError, match="whole number"):
            TopK(wrong)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_statistical_topk_hits_the_density_of_a_normal_token(density):
    x = torch.randn(200, 500, generator=torch.Generator().manual_seed(0)) * 3 - 7
    fired = (StatisticalTopK(density)(x) > 0).float().mean().item()
    assert fired == pytest.approx(density, abs=5 * math.sqrt(density / x.numel()) + 0.002)


def test_statistical_topk_gradient_and_edges():
    x = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    assert torch.autograd.gradcheck(StatisticalTopK(0.3), x)
    flat = torch.ones(2, 4, requires_grad=True)
    StatisticalTopK(0.3)(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()
    assert StatisticalTopK(0.3)(torch.full((1, 8), 300.0).half()).dtype == torch.float16
    with pytest.raises(ShapeError, match="at least 2"):
        StatisticalTopK(0.3)(torch.ones(2, 1))
    with pytest.raises(ConfigError, match="fraction"):
        StatisticalTopK(1.0)


@pytest.mark.parametrize("wrong", ["a", None, True, math.nan, math.inf, -1, [1.0]])
def test_the_weight_of_the_square_is_a_finite_number_from_0_on(wrong):
    with pytest.raises(ConfigError, match="`mix` is a"):
        JSReLU(mix=wrong)
    module = JSReLU(mix=0.5)
    with pytest.raises(ConfigError, match="`mix` is a"):
        module.mix = wrong
    assert module.mix == 0.5
