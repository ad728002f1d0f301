"""Text, span corruption and the language tasks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.experiments.training.language import DecoderTask, LanguageSize, SpanTask
from lazyneuron.experiments.training.spans import corrupt, span_lengths
from lazyneuron.experiments.training.text import Tokens, text_tokens, tokenize
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant, train
from lazyneuron.induce import DoublyBiased

pytest.importorskip("transformers")
SIZE = LanguageSize(width=16, layers=1, heads=2, hidden=32, length=24, batch=8)


def _put_back(inputs: list[int], targets: list[int], first: int) -> list[int]:
    """What the T5 paper says a corrupted pair stands for: each sentinel of the inputs is its span of the targets."""
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token >= first:
            spans[token] = current = []
        else:
            current.append(token)
    return [t for token in inputs for t in (spans[token] if token >= first else [token])]


@pytest.mark.parametrize("length", [7, 24, 96, 512])
def test_a_corrupted_pair_holds_every_token_once_and_in_order(length: int) -> None:
    rows = torch.randint(0, 1000, (5, length), generator=torch.Generator().manual_seed(1))
    inputs, targets = corrupt(rows, first_sentinel=1000, generator=torch.Generator().manual_seed(2))
    taken = round(0.15 * length)
    spans = max(1, round(taken / 3))
    assert inputs.shape == (5, length - taken + spans) and targets.shape == (5, taken + spans)
    for row, left, right in zip(rows.tolist(), inputs.tolist(), targets.tolist(), strict=True):
        assert _put_back(left, right, 1000) == row
        assert [t for t in left if t >= 1000] == list(range(1000, 1000 + spans))


def test_spans_differ_from_row_to_row_and_too_short_rows_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, _ = corrupt(torch.zeros(20, 60, dtype=torch.long), first_sentinel=5, generator=generator)
    assert len({tuple(row) for row in inputs.tolist()}) > 10
    lengths = [span_lengths(9, 3, generator) for _ in range(200)]
    assert all(len(k) == 3 and sum(k) == 9 and min(k) >= 1 for k in lengths)
    assert len({tuple(k) for k in lengths}) == 28  # 8 choose 2 ways to cut 9 into 3 parts
    with pytest.raises(ShapeError, match="too short"):
        corrupt(torch.zeros(1, 2, dtype=torch.long), first_sentinel=5, generator=generator)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    documents = [(f"{k}.py", f"def f{k}(x):\n    return x + {k}\n" * 6) for k in range(60)]
    return tokenize(documents, name="functions", vocabulary=300)


def test_documents_are_split_and_encoded_without_loss(tokens: Tokens) -> None:
    assert len(tokens.train) > 4 * len(tokens.held_out) > 0
    assert int(tokens.train.max()) < tokens.vocabulary <= 300
    assert int((tokens.train == 0).sum()) + int((tokens.held_out == 0).sum()) == 60  # an end after each document
    with pytest.raises(DataError, match="too few documents"):
        tokenize([("a.py", "x = 1")], name="one", vocabulary=300)
    with pytest.raises(DataError, match="fewer tokens than one sequence"):
        DecoderTask(tokens, LanguageSize(length=10**6))


def test_text_comes_from_shards_of_c4_or_from_sources(tmp_path: Path) -> None:
    shards, sources = tmp_path / "c4", tmp_path / "code"
    shards.mkdir(), sources.mkdir()
    lines = [json.dumps({"text": f"The cell number {k} of the hive holds honey.", "url": "x"}) for k in range(80)]
    with gzip.open(shards / "c4-train.00000-of-01024.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    for k in range(40):
        (sources / f"m{k}.py").write_text(f"x = {k}\n")
    published, own = text_tokens(shards, 300), text_tokens(sources, 300)
    assert (published.name, own.name) == ("C4", "code")
    assert int((published.train == 0).sum()) + int((published.held_out == 0).sum()) == 80
    assert int((own.train == 0).sum()) + int((own.held_out == 0).sum()) == 40
    with pytest.raises(DataError, match="too few documents"):
        text_tokens(tmp_path / "nowhere", 300)


def _first(task: DecoderTask | SpanTask) -> dict[str, Tensor]:
    return dict(next(iter(task.batches(torch.Generator().manual_seed(0)))))


def test_the_decoder_predicts_the_next_token_and_learns(tokens: Tokens) -> None:
    task = DecoderTask(tokens, SIZE)
    batch = _first(task)
    assert batch["input_ids"].shape == (8, 24)
    torch.manual_seed(0)
    model = task.new_model()
    losses, right = task.losses(model, batch)
    with torch.no_grad():
        published = model(**batch, labels=batch["input_ids"]).loss  # the library's own shift by one
    assert losses.shape == right.shape == (8 * 23,)
    torch.testing.assert_close(losses.mean(), published)
    _, points = train(
        task, TrainingConfig(steps=120, learning_rate=5e-3, evaluations=2), variant=Variant(name="vanilla"), seed=0
    )
    assert points[-1].loss < 0.6 * float(losses.detach().mean()) and points[-1].accuracy > 0.3


def test_the_encoder_decoder_learns_spans_with_the_recipe(tokens: Tokens) -> None:
    task = SpanTask(tokens, SIZE)
    batch = _first(task)
    assert bool((batch["decoder_input_ids"][:, 1:] == batch["labels"][:, :-1]).all())
    assert bool((batch["decoder_input_ids"][:, 0] == 0).all())
    torch.manual_seed(0)
    model = task.new_model()
    assert len(find_blocks(model)) == 2
    losses, _ = task.losses(model, batch)
    with torch.no_grad():
        torch.testing.assert_close(losses.mean(), model(input_ids=batch["input_ids"], labels=batch["labels"]).loss)
    recipe = Variant(name="all", recipe=DoublyBiased())
    _, points = train(task, TrainingConfig(steps=120, learning_rate=1e-2, evaluations=2), variant=recipe, seed=0)
    assert points[-1].loss < points[0].loss < float(losses.detach().mean())
