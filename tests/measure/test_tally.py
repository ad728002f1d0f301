import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyneuron.measure.lanes import count_columns, count_rows, pack
from lazyneuron.measure.tally import UNION_SIZES, Tally, Tokens


@given(
    rows=st.integers(0, 600),
    columns=st.integers(1, 70),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_lane_counts(rows, columns, seed, share):
    fired = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share
    lanes = pack(fired)
    assert torch.equal(count_rows(lanes), fired.sum(1))
    assert torch.equal(count_columns(lanes, columns), fired.sum(0))


def test_lane_counts_do_not_carry_past_255_words():
    fired = torch.ones(3, 8 * 700, dtype=torch.bool)
    assert count_rows(pack(fired)).tolist() == [5600] * 3
    assert count_columns(pack(fired.t()), 3).tolist() == [5600] * 3


def test_pack_of_a_strided_view():
    fired = torch.rand(5, 4, 9) < 0.5
    turned = fired.transpose(0, 1)
    assert torch.equal(count_rows(pack(turned)), turned.reshape(-1, 9).sum(1))


def fill(flush_bytes: int, batches: list[torch.Tensor]) -> Tally:
    tally = Tally(batches[0].shape[-1], torch.device("cpu"), flush_bytes=flush_bytes)
    for fired in batches:
        tokens = Tokens.of(tuple(fired.shape[:-1]), None, fired.device)
        tally.add_positive(fired, tokens)
        tally.add_fired(fired, tokens)
    return tally


def test_flushing_early_changes_only_which_windows_are_complete():
    torch.manual_seed(0)
    batches = [torch.rand(2, 300, 12) < 0.1 for _ in range(3)]
    late, early = fill(1 << 23, batches).totals(), fill(1, batches).totals()
    assert torch.equal(late.fired, early.fired)
    assert (late.tokens, late.positive_share, late.pairs) == (early.tokens, early.positive_share, early.pairs)
    assert late.overlap == pytest.approx(early.overlap)
    windows = [w for _, w in late.unions]
    assert windows == [1800 // size for size in UNION_SIZES]
    assert [w for _, w in early.unions] == [3 * (600 // size) for size in UNION_SIZES]


def test_union_windows_join_the_calls_of_a_decoder():
    one = torch.tensor([[[True, False]]])
    other = torch.tensor([[[False, True]]])
    totals = fill(1 << 23, [one, other]).totals()
    assert totals.unions[1] == (1.0, 1)
    assert totals.pairs == 0


def test_tokens_follow_within_a_sequence_only():
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])
    tokens = Tokens.of((2, 4), mask, mask.device)
    assert tokens.follows.int().tolist() == [0, 1, 0, 0, 0, 1, 1, 1]
    assert Tokens.of((), None, mask.device).real.tolist() == [True]
