import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lazyneuron.core.errors import ConfigError, DataError, NoBlocksError, ShapeError
from lazyneuron.measure import measure
from tests.measure.networks import Gated, Plain, block_of, brute_overlaps, brute_unions, set_linear


def hand_model() -> Plain:
    model = Plain(2, 3)
    set_linear(model.up, [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, -1.0])
    return model


# firing sets of the hand model: {0}, {0, 1}, {}, {1}
HAND = torch.tensor([[[1.0, -1.0], [2.0, 0.5], [-1.0, -1.0], [-3.0, 4.0]]])


def test_hand_worked_case():
    model = hand_model()
    (block,) = measure(model, [HAND], blocks=[block_of(model)]).blocks
    assert block.tokens == 4
    assert block.density == pytest.approx(4 / 12)
    assert block.density_if_relu == pytest.approx(4 / 12)
    assert block.firing_counts.tolist() == [2, 2, 0]
    assert block.firing_rates.tolist() == [0.5, 0.5, 0.0]
    assert block.dead == (2,)
    assert block.always_on == ()
    assert [(u.tokens, u.windows) for u in block.unions] == [(1, 4), (2, 2), (4, 1), (8, 0), (16, 0), (64, 0), (256, 0)]
    assert block.union_density(2) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert block.union_density(4) == pytest.approx(2 / 3)
    assert block.union_density(8) is None
    assert block.overlap == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert block.padding == "no mask"


def test_padding_is_excluded_everywhere():
    model = hand_model()
    mask = torch.tensor([[1, 0, 1, 1]])
    (block,) = measure(model, [{"x": HAND, "attention_mask": mask}], blocks=[block_of(model)]).blocks
    assert block.tokens == 3
    assert block.firing_counts.tolist() == [1, 1, 0]
    assert block.density_if_relu == pytest.approx(2 / 9)
    assert block.union_density(2) == pytest.approx(1 / 3)
    assert block.overlap == 0.0
    assert block.overlap_pairs == 1
    assert block.padding == "excluded"


def test_two_silent_tokens_overlap_fully_and_sequences_do_not_touch():
    model = hand_model()
    silent = torch.full((2, 2, 2), -1.0)
    (block,) = measure(model, [silent], blocks=[block_of(model)]).blocks
    assert (block.overlap, block.overlap_pairs) == (1.0, 2)


@given(
    hidden=st.sampled_from([1, 7, 8, 9, 16]),
    shape=st.sampled_from([(1, 1), (3, 5), (2, 40), (1, 300)]),
    kind=st.sampled_from(
        [("relu", ()), ("gelu", ()), ("fatrelu", (0.3,)), ("squared_relu", ()), ("thresholded_gelu", (0.1,))]
    ),
    masked=st.booleans(),
    flattened=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_against_brute_force(hidden, shape, kind, masked, flattened, seed):
    generator = torch.Generator().manual_seed(seed)
    model = Plain(3, hidden, *kind)
    mask = torch.rand(shape, generator=generator) < 0.7 if masked else torch.ones(shape, dtype=torch.bool)
    mask[0, 0] = True
    batches = [torch.randn(*shape, 3, generator=generator) for _ in range(2)]
    shown = [b.flatten(0, 1) for b in batches] if flattened else batches
    (block,) = measure(model, shown, tokens_mask=[mask, mask], blocks=[block_of(model)]).blocks

    stream, positive, sequences = [], [], []
    for batch in batches:
        z = model.up(batch)
        fired, above = (model.activation(z) != 0).tolist(), (z > 0).tolist()
        for row in range(shape[0]):
            run: list[list[bool]] = []
            for t in range(shape[1]):
                if mask[row, t]:
                    run.append(fired[row][t])
                    stream.append(fired[row][t])
                    positive += above[row][t]
                else:
                    sequences.append(run)
                    run = []
            sequences.append(run)
    assert block.tokens == len(stream)
    assert block.density == pytest.approx(statistics.mean(x for row in stream for x in row))
    assert block.density_if_relu == pytest.approx(statistics.mean(positive))
    assert block.firing_counts.tolist() == [sum(column) for column in zip(*stream, strict=True)]
    for union in block.unions:
        expected = brute_unions(stream, union.tokens)
        assert union.windows == len(expected)
        assert union.density == (pytest.approx(statistics.mean(expected)) if expected else None)
    overlaps = brute_overlaps(sequences)
    assert block.overlap == (pytest.approx(statistics.mean(overlaps)) if overlaps else None)
    assert block.overlap_pairs == len(overlaps)


@pytest.mark.parametrize(
    ("kind", "parameters"), [("relu", ()), ("silu", ()), ("thresholded_silu", (0.1,)), ("squared_relu", ())]
)
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_gated_block_counts_what_the_gate_lets_through(kind, parameters, threshold):
    torch.manual_seed(0)
    model = Gated(kind=kind, parameters=parameters)
    x = torch.randn(4, 9, 6)
    (block,) = measure(model, [x], threshold=threshold, blocks=[block_of(model)]).blocks
    opened = model.activation(model.gate(x))
    assert block.gated
    assert block.density == pytest.approx((opened.abs() > (threshold or 0.0)).double().mean().item())
    assert block.density_if_relu == pytest.approx((model.gate(x) > 0).double().mean().item())


@pytest.mark.parametrize("threshold", [0.0, 0.05, 10.0])
def test_threshold_counts_small_activations_as_zero(threshold):
    torch.manual_seed(1)
    model = Plain(kind="gelu")
    x = torch.randn(5, 7, 6)
    (block,) = measure(model, [x], threshold=threshold, blocks=[block_of(model)]).blocks
    h = model.activation(model.up(x))
    assert block.density == pytest.approx((h.abs() > threshold).double().mean().item())
    assert block.density_if_relu == pytest.approx((model.up(x) > 0).double().mean().item())


def test_an_activation_equal_to_the_threshold_counts_as_zero():
    model = hand_model()
    (block,) = measure(model, [HAND], threshold=1.0, blocks=[block_of(model)]).blocks
    assert block.firing_counts.tolist() == [1, 1, 0]
    assert block.density_if_relu == pytest.approx(4 / 12)


def test_nan_fires():
    model = hand_model()
    x = HAND.clone()
    x[0, 2, 0] = float("nan")
    for threshold in (None, 0.1):
        (block,) = measure(model, [x], threshold=threshold, blocks=[block_of(model)]).blocks
        assert block.firing_counts.tolist() == [3, 3, 1]


def test_dropout_zeros_do_not_count_as_silence():
    torch.manual_seed(2)
    model = Plain(kind="gelu", p=0.5).train()
    (block,) = measure(model, [torch.randn(50, 6)], blocks=[block_of(model)]).blocks
    assert block.density == 1.0


def test_a_mask_that_does_not_fit_is_reported():
    model = nn.ModuleDict({"a": Plain(), "b": Plain()})

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x, attention_mask=None):
            return self.parts["a"](x), self.parts["b"](x[:, :2])

    both = Both()
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    blocks = [block_of(model[k], f"parts.{k}") for k in "ab"]
    batch = {"x": torch.randn(2, 3, 6), "attention_mask": mask}
    a, b = measure(both, [batch], blocks=blocks).blocks
    assert (a.tokens, a.padding) == (3, "excluded")
    assert (b.tokens, b.padding) == (4, "mask did not fit")
    assert "every token counts as real" in b.notes[0]


def test_masks_from_a_function():
    model = hand_model()
    (block,) = measure(model, [HAND], tokens_mask=lambda x: x[..., 0] > 0, blocks=[block_of(model)]).blocks
    assert block.tokens == 2


def test_a_block_that_does_not_run_is_in_the_report():
    ran, idle = hand_model(), Plain()
    model = nn.ModuleList([ran, idle])
    model.forward = ran.forward
    first, second = measure(model, [HAND], blocks=[block_of(ran, "0"), block_of(idle, "1")]).blocks
    assert first.tokens == 4
    assert (second.tokens, second.density, second.union_density(1), second.dead) == (0, None, None, ())
    assert second.notes == ("It did not run.",)


def test_no_tokens_at_all_raises():
    model = hand_model()
    with pytest.raises(NoBlocksError, match="None of the 1 blocks saw a real token"):
        measure(model, [HAND], tokens_mask=[torch.zeros(1, 4)], blocks=[block_of(model)])


@pytest.mark.parametrize(
    ("batches", "options", "error", "message"),
    [
        ([], {}, DataError, "no batches"),
        (HAND, {}, DataError, "single Tensor"),
        ([HAND[0].tolist()], {}, DataError, "got list"),
        ([HAND], {"threshold": -1.0}, ConfigError, "finite number >= 0, got -1"),
        ([HAND], {"threshold": float("nan")}, ConfigError, "finite number >= 0, got nan"),
        ([HAND], {"tokens_mask": torch.ones(1, 4)}, ConfigError, "one tensor"),
        ([HAND, HAND], {"tokens_mask": [torch.ones(1, 4)]}, DataError, "ends after 1 masks"),
        ([HAND], {"tokens_mask": [torch.ones(3, 3)]}, ShapeError, r"\(3, 3\)\) fit none of the 1 blocks.*\(1, 4\)"),
        ([HAND], {"tokens_mask": [[1, 1, 1, 1]]}, DataError, "A mask is a tensor"),
    ],
)
def test_bad_input_gets_one_sentence(batches, options, error, message):
    model = hand_model()
    with pytest.raises(error, match=message):
        measure(model, batches, blocks=[block_of(model)], **options)
    assert not model.up._forward_hooks
    assert not model.down._forward_pre_hooks


def test_cost_model_is_asked_for_every_measured_window():
    from lazyneuron.measure import StepTime

    asked = []

    def cost(block, *, tokens, density, union_density):
        asked.append((tokens, density, union_density))
        return StepTime(dense_us=10.0, best_us=4.0, path="sparse")

    model = hand_model()
    (block,) = measure(model, [HAND], blocks=[block_of(model)], cost=cost).blocks
    assert asked == [(u.tokens, block.density, u.density) for u in block.unions if u.density is not None]
    assert [p.speedup for p in block.predicted] == [2.5] * 3
