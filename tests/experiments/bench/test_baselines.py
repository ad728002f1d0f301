"""Each baseline computes what its definition says, on small blocks."""

import dataclasses

import pytest
import torch

from lazyneuron.experiments.bench.blocks.baselines import cats, low_rank, pruned, teal
from lazyneuron.experiments.bench.blocks.baselines.baseline import Problem
from lazyneuron.experiments.bench.blocks.baselines.registry import BASELINES, DENSE
from lazyneuron.experiments.bench.blocks.baselines.rows import weighted_rows
from lazyneuron.experiments.bench.blocks.truth import evaluate, missed_share, relative_error
from tests.accelerate.blocks import make_block

D, HIDDEN = 32, 96


@pytest.fixture(params=[False, True], ids=["plain", "gated"])
def block(request):
    return make_block(D, HIDDEN, D, gated=request.param, shift=-1.0)


def inputs(tokens, *, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, D, generator=generator) for _ in range(3)]


def problem(block, tokens, **changes):
    return Problem(block=block, calibration=inputs(256, seed=2)[0], inputs=inputs(tokens), **changes)


def by_hand(block, x, keep=None):
    """The dense block in float64, neuron by neuron; ``keep`` is a mask (tokens, neurons) of those that count."""
    wide, y = x.double(), block.down.bias.double().repeat(len(x), 1)
    for i in range(block.d_hidden):
        h = torch.relu(wide @ block.first.weight[i].double() + block.first.bias[i].double())
        if block.gate is not None:
            h = h * (wide @ block.up.weight[i].double() + block.up.bias[i].double())
        if keep is not None:
            h = h * keep[:, i]
        y += h[:, None] * block.down.weight[:, i].double()
    return y


def firing(block, x):
    return x.double() @ block.first.weight.double().T + block.first.bias.double() > 0


def test_the_judge_is_right(block):
    x = inputs(5)[0]
    y, fires = evaluate(block, x)
    torch.testing.assert_close(y.double(), by_hand(block, x), rtol=1e-5, atol=1e-5)
    assert torch.equal(fires, firing(block, x))


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("name", ["dense", "gather", "csr", "oracle"])
def test_exact_baselines_are_exact(block, name, tokens):
    if name == "csr" and not torch.backends.mkl.is_available():
        pytest.skip("torch has no CSR product here")
    baseline = DENSE if name == "dense" else BASELINES[name]
    built = baseline.build(problem(block, tokens))
    assert baseline.exact
    for x in (*problem(block, tokens).inputs, inputs(tokens, seed=9)[0]):
        torch.testing.assert_close(built.run(x).double(), by_hand(block, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_oracle_computes_nothing_that_it_was_not_told_to(block, tokens):
    task = problem(block, tokens)
    built = BASELINES["oracle"].build(task)
    before = [by_hand(block, x, firing(block, x)) for x in task.inputs]
    with torch.no_grad():  # neurons that fire on no token of an input are spoilt; their rows must not be read
        for x, wanted in zip(task.inputs, before, strict=True):
            silent = ~firing(block, x).any(0)
            assert silent.any()
            held = block.first.bias.clone()
            block.first.module.bias[silent] = float("nan")
            torch.testing.assert_close(built.run(x).double(), wanted, rtol=1e-5, atol=1e-5)
            block.first.module.bias.copy_(held)


def test_nothing_fires_at_all(block):
    with torch.no_grad():
        block.first.module.bias.fill_(-100)
    for name in ("gather", "oracle", "teal", "cats", "low-rank", "pruned"):
        for tokens in (1, 3):
            task = problem(block, tokens)
            y = BASELINES[name].build(task).run(task.inputs[0])
            torch.testing.assert_close(y, block.down.bias.repeat(tokens, 1), rtol=1e-6, atol=1e-6)


def test_pruned_is_the_dense_block_of_the_kept_neurons(block):
    task = problem(block, 4)
    built, x = pruned.build(task), task.inputs[0]
    kept = built.used(x)
    fires = firing(block, task.calibration)
    assert int(kept[0].sum()) == round(float(fires.double().mean()) * HIDDEN)
    torch.testing.assert_close(built.run(x).double(), by_hand(block, x, kept), rtol=1e-5, atol=1e-5)
    assert built.added_bytes < 0


def test_pruned_keeps_the_neurons_that_matter(block):
    with torch.no_grad():
        block.down.module.weight[:, 10:] *= 1e-3
    kept = pruned.build(problem(block, 1)).used(inputs(1)[0])[0]
    assert kept[:10].all()


@pytest.mark.parametrize("tokens", [1, 3])
def test_thresholds_at_zero_change_nothing(block, tokens):
    x = inputs(tokens)[0]
    for built in (teal.with_thresholds(block, 0.0, 0.0), cats.with_threshold(block, 0.0)):
        torch.testing.assert_close(built.run(x).double(), by_hand(block, x), rtol=1e-5, atol=1e-5)
        assert missed_share(built.used(x), firing(block, x)) == 0


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("threshold", [0.3, 1.5])  # many and few columns are left
def test_teal_is_the_dense_block_of_the_inputs_above_the_threshold(block, tokens, threshold):
    x = inputs(tokens)[0]
    built = teal.with_thresholds(block, threshold, 0.0)
    cut = torch.where(x.abs() > threshold, x, 0.0)
    torch.testing.assert_close(built.run(x).double(), by_hand(block, cut), rtol=1e-5, atol=1e-5)
    assert torch.equal(built.used(x), firing(block, cut))


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("threshold", [0.05, 0.6])
def test_cats_is_the_dense_block_of_the_neurons_above_the_threshold(block, tokens, threshold):
    x = inputs(tokens)[0]
    built = cats.with_threshold(block, threshold)
    kept = x.double() @ block.first.weight.double().T + block.first.bias.double() > threshold
    torch.testing.assert_close(built.run(x).double(), by_hand(block, x, kept), rtol=1e-5, atol=1e-5)
    assert torch.equal(built.used(x), kept)


def test_cats_keeps_half_of_what_fires(block):
    task = problem(block, 1)
    built = cats.build(task)
    kept = float(built.used(task.calibration).double().mean())
    assert kept == pytest.approx(0.5 * float(firing(block, task.calibration).double().mean()), rel=0.02)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_teal_reads_as_many_bytes_as_it_is_given(block, share):
    task = problem(block, 1, byte_share=share)
    noted = float(teal.build(task).note.split()[0])
    first, layers = noted * (len(block.linears) - 1), len(block.linears)
    fires = float(firing(block, task.calibration).double().mean())
    assert (first + fires) / layers == pytest.approx(min(share, (layers - 1 + fires) / layers), abs=0.01)


def test_a_predictor_of_full_rank_recalls_everything(block):
    task = problem(block, 3)
    built = low_rank.with_rank(block, task.calibration, rank=D, recall=1.0)
    inner, outer = low_rank.fit(block, task.calibration, D)
    torch.testing.assert_close(outer @ inner, block.first.weight, rtol=1e-4, atol=1e-5)
    held_out = task.calibration[-len(task.calibration) // 8 :]
    missed = sum(int((firing(block, x[None]) & ~built.used(x[None])).sum()) for x in held_out)
    # the pair that sets the threshold lies on it, and one token is rounded otherwise than many
    assert missed <= 1 < int(firing(block, held_out).sum())


def test_the_predictor_is_the_best_of_its_rank(block):
    x = problem(block, 1).calibration.double()
    inner, outer = (t.double() for t in low_rank.fit(block, x.float(), 8))
    values = x @ block.first.weight.double().T
    left = (values - x @ inner.T @ outer.T).square().sum()
    # Eckart and Young: no matrix of rank 8 is nearer than the leading singular vectors
    least = torch.linalg.svdvals(values)[8:].square().sum()
    assert float(left) == pytest.approx(float(least), rel=1e-4)


@pytest.mark.parametrize("recall", [0.5, 0.9, 1.0])
def test_the_predictors_threshold_finds_the_wanted_share(recall):
    scores, fires = torch.randn(200, 50, generator=torch.Generator().manual_seed(3)), torch.ones(200, 50).bool()
    found = float((scores >= low_rank.threshold_for(scores, fires, recall)).double().mean())
    assert recall <= found <= recall + 1e-3


def test_the_predictor_keeps_its_recall_on_new_tokens():
    block = make_block(D, HIDDEN, D, shift=-1.6)
    calibration = torch.randn(4096, D, generator=torch.Generator().manual_seed(2))
    built = low_rank.with_rank(block, calibration, rank=D // 2, recall=0.9)
    fresh = torch.randn(500, D, generator=torch.Generator().manual_seed(8))
    missed = [
        (missed_share(built.used(x[None]), f), int(f.sum())) for x in fresh if (f := firing(block, x[None])).any()
    ]
    assert sum(m * n for m, n in missed) / sum(n for _, n in missed) == pytest.approx(0.1, abs=0.03)


def test_the_predictor_leaves_out_what_it_does_not_expect(block):
    with torch.no_grad():
        block.first.module.bias.fill_(-2.0)
    task = problem(block, 1)
    built, x = low_rank.with_rank(block, task.calibration, rank=16, recall=0.3), task.inputs[0]
    used = built.used(x)
    assert 0 < int(used.sum()) < HIDDEN // 2
    torch.testing.assert_close(built.run(x).double(), by_hand(block, x, used), rtol=1e-5, atol=1e-5)


def test_int8_is_near_and_holds_a_quarter_of_the_bytes(block):
    task = problem(block, 3)
    built = BASELINES["int8"].build(task)
    error = relative_error(built.run(task.inputs[0]), by_hand(block, task.inputs[0]).float())
    assert 1e-5 < error < 0.1
    weights = sum(s.weight.numel() for s in block.linears)
    assert built.added_bytes == -3 * weights
    assert block.up.weight.dtype == torch.float32


def test_bfloat16_oracle_and_gather(block):
    for site in block.linears:
        site.module.bfloat16()
    for tokens in (1, 3):
        task = problem(block, tokens)
        task = dataclasses.replace(
            task, inputs=[x.bfloat16() for x in task.inputs], calibration=task.calibration.bfloat16()
        )
        wanted = by_hand(block, task.inputs[0]).float()
        for name in ("oracle", "gather", "int8"):
            got = BASELINES[name].build(task).run(task.inputs[0])
            assert got.dtype == torch.bfloat16
            assert relative_error(got, wanted) < (0.1 if name == "int8" else 1e-2)


@pytest.mark.slow
def test_compiled_is_exact(block):
    task = problem(block, 2)
    try:
        built = BASELINES["compiled"].build(task)
    except RuntimeError as error:
        pytest.skip(f"nothing compiles here: {error}")
    torch.testing.assert_close(built.run(task.inputs[1]).double(), by_hand(block, task.inputs[1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_weighted_rows(count):
    rows, weight = torch.randn(9, 5), torch.randn(count)
    index = torch.randperm(9)[:count]
    wanted = sum((w * rows[i] for w, i in zip(weight, index, strict=True)), torch.zeros(5))
    torch.testing.assert_close(weighted_rows(rows, index, weight)[0], wanted)


def test_measures_of_quality():
    fires = torch.tensor([[True, True, False, True]])
    assert missed_share(torch.tensor([[True, False, True, False]]), fires) == pytest.approx(2 / 3)
    assert missed_share(fires, fires) == 0
    assert relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(1 / 5)
