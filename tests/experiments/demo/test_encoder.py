"""Batches by length, embeddings without padding."""

import pytest
import torch

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.encoder import Shuffled, by_length, padded, sentence_embedding

IDS = [[5] * n for n in (3, 9, 1, 4, 4, 7, 2, 3)]


def test_padding_and_mask_by_hand():
    batch = padded([[7, 8, 9], [4]])
    assert batch["input_ids"].tolist() == [[7, 8, 9], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_batches_hold_every_row_once_and_stay_within_their_tokens():
    groups = by_length(IDS, tokens=8)
    assert sorted(i for group in groups for i in group) == list(range(len(IDS)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(IDS[i]) for i in group) <= 8
    lengths = [len(IDS[i]) for group in groups for i in group]
    assert lengths == sorted(lengths)
    with pytest.raises(DataError, match="no lines"):
        by_length([], tokens=8)


def test_shuffling_is_a_function_of_the_seed_and_goes_on():
    ids = [[k + 1] * (1 + k % 5) for k in range(40)]

    def passes(seed: int) -> list[list[list[int]]]:
        batches = Shuffled(ids, tokens=12, seed=seed, flag=True)
        return [[batch["input_ids"].tolist() for batch in batches] for _ in range(2)]

    first, second = passes(1)
    assert (first, second) == tuple(passes(1))
    assert first != second
    assert passes(2)[0] != first
    rows = sorted(max(row) for batch in first for row in batch)
    assert rows == list(range(1, 41))
    assert next(iter(Shuffled(ids, tokens=12, seed=0, flag=True)))["flag"] is True


def test_embedding_ignores_padding():
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [99.0, 99.0]], [[0.0, 2.0], [5.0, 5.0], [5.0, 5.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.allclose(sentence_embedding(tokens, mask), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
