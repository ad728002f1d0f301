"""Decoding: transformers' own tokens, the dense evaluation beside them, and the bytes that a token reads."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.execution import accelerated_blocks
from lazyneuron.core.errors import DataError
from lazyneuron.generate.decoding import Decoding, compare, decode, settings_for
from lazyneuron.generate.load import load_quantised
from lazyneuron.generate.traffic import traffic
from tests.generate.models import BUILD, save
from tests.kernels import needs_kernels

pytestmark = needs_kernels
IDS = torch.randint(5, 300, (1, 9), generator=torch.Generator().manual_seed(0))
INPUTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def loaded(
    folder: Path, name: str = "llama", *, weights: str = "int8", rest: str = "int8", **others: object
) -> nn.Module:
    save(folder, name, **others)
    return load_quantised(folder, weights=weights, rest=rest)[0]


def decoding(*tokens: int) -> Decoding:
    return Decoding(tokens=tokens, prompt_tokens=9, prefill_ms=1.0, token_ms=(1.0,), computed=None)


@pytest.mark.parametrize("name", BUILD)
def test_tokens_are_those_of_generate_sparse_and_dense(name: str, tmp_path: Path) -> None:
    model = loaded(tmp_path, name, weights="int4")
    settings = settings_for(model, max_new_tokens=24)
    said: list[int] = []
    sparse = decode(model, INPUTS, settings, on_tokens=said.extend)
    whole = model.generate(**INPUTS, max_new_tokens=24, do_sample=False, pad_token_id=0)[0].tolist()
    start = 1 if model.config.is_encoder_decoder else IDS.shape[1]
    assert list(sparse.tokens) == said == whole[start:]
    assert len(sparse.token_ms) == len(sparse.tokens) - 1 and sparse.prompt_tokens == 9
    dense = decode(model, INPUTS, settings, dense=True)
    assert dense.tokens == sparse.tokens and 0 < sparse.computed < 1 == dense.computed
    assert not any(run.every for run in accelerated_blocks(model))
    found = compare(model, INPUTS, sparse, dense)
    assert (found.equal, found.of, found.tie) == (len(sparse.tokens), len(sparse.tokens), None)


def test_the_dense_evaluation_of_kept_blocks_runs_their_layers(tmp_path: Path) -> None:
    model = loaded(tmp_path, weights="keep")
    settings = settings_for(model, max_new_tokens=8)
    calls = [block.calls for block in lazy.status(model).blocks]
    sparse = decode(model, INPUTS, settings)
    before = [block.sparse_calls for block in lazy.status(model).blocks]
    dense = decode(model, INPUTS, settings, dense=True)
    after = lazy.status(model).blocks
    assert [b.sparse_calls for b in after] == before and all(b.calls > n for b, n in zip(after, calls, strict=True))
    assert dense.tokens == sparse.tokens and dense.computed == 1


def test_the_computed_share_is_that_of_the_decoded_tokens(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    seen: list[float] = []
    runs = accelerated_blocks(model)
    whole = decode(model, INPUTS, settings_for(model, max_new_tokens=12))
    for run in runs:
        run.counts.zero_()
    ids = torch.cat([IDS, torch.tensor([whole.tokens[:-1]])], 1)
    with torch.no_grad():
        past = model(input_ids=IDS, use_cache=True).past_key_values
        for run in runs:
            run.counts.zero_()
        for k in range(IDS.shape[1], ids.shape[1]):
            past = model(input_ids=ids[:, k : k + 1], past_key_values=past, use_cache=True).past_key_values
    for run in runs:
        seen.append(run.fired())
    assert whole.computed == pytest.approx(sum(seen) / len(seen), rel=1e-9)


def test_sampling_is_repeated_by_its_seed(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    settings = settings_for(model, max_new_tokens=24, sample=True, temperature=5.0, top_p=0.99)
    first, again, other = (decode(model, INPUTS, settings, seed=seed).tokens for seed in (3, 3, 4))
    assert first == again != other
    assert decode(model, INPUTS, settings, seed=3, dense=True).tokens == first


def test_a_first_difference_is_named_a_tie_only_if_it_is_one(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    with torch.no_grad():
        logits = model(IDS).logits[0, -1]
    best, *_, worst = logits.argsort(descending=True).tolist()
    assert compare(model, INPUTS, decoding(best, 7), decoding(worst, 7)).tie is False
    found = compare(model, INPUTS, decoding(best, 7), decoding(best))
    assert (found.equal, found.of, found.tie) == (1, 2, False)
    with torch.no_grad():  # two entries of the vocabulary with the same row are tied whatever comes before
        model.lm_head.rows[worst] = model.lm_head.rows[best]
        model.lm_head.scale[worst] = model.lm_head.scale[best]
    found = compare(model, INPUTS, decoding(best, 7), decoding(worst, 7))
    assert (found.equal, found.of, found.tie) == (0, 2, True)


@pytest.mark.parametrize(("weights", "rest"), [("int8", "int8"), ("int4", "int8"), ("int8", "keep")])
def test_bytes_a_token_by_hand(weights: str, rest: str, tmp_path: Path) -> None:
    model = loaded(tmp_path, weights=weights, rest=rest)
    d, h, v, kv = 128, 256, 384, 64
    per_layer = 2 * d * d + 2 * d * kv  # q and o, k and v

    def of(form: str, rows: int, width: int) -> float:
        if form == "keep":
            return 4.0 * rows * width
        return rows * width + 4 * rows if form == "int8" else rows * (width / 2 + 2 * 16)  # 16 scales a block of a row

    others = 2 * (2 * of(rest, d, d) + 2 * of(rest, kv, d)) + of(rest, v, d)
    down = h * d + 4 * h if weights == "int8" else h * (d / 2 + 2 * d / 32)
    found = traffic(model, INPUTS)
    assert per_layer and found.rows == pytest.approx(2 * (of(weights, h, d) + down), rel=1e-6)
    always = others + 2 * of(weights, h, d) + 4 * d + 5 * 4 * d  # a row of the embedding, five norms
    assert found.always == pytest.approx(always, rel=0.01)
    assert found.bytes_per_token(0.25) == round(found.always + found.rows / 4)
    assert found.bytes_per_token(None) == traffic(model, INPUTS, dense=True).bytes_per_token(1.0)


def test_bytes_of_blocks_that_keep_their_weights(tmp_path: Path) -> None:
    model = loaded(tmp_path, weights="keep", rest="int8")
    lazy.restore_(model, lazy.receipts(model)[-1])
    layers = traffic(model, INPUTS, dense=True).bytes_per_token(None)
    lazy.accelerate_(model, [IDS], impl="native")
    found = traffic(model, INPUTS)
    weights = 2 * 4 * 3 * 128 * 256  # two blocks, float32, three matrices
    assert found.rows == weights
    # one byte a weight of the gate, and six numbers a neuron, take the place of what is not computed
    assert found.always == pytest.approx(layers - weights + 2 * (128 * 256 + 6 * 4 * 256), rel=0.01)


def test_bytes_of_a_certified_head(tmp_path: Path) -> None:
    model = loaded(tmp_path, weights="int8", rest="keep")
    whole = traffic(model, INPUTS)
    lazy.certify_head_(model, [IDS], always=True)
    found = traffic(model, INPUTS)
    # a byte a weight, six numbers an entry, and 128 rows of the head (the fewest that are multiplied) instead of all
    assert whole.always - found.always == 4 * 384 * 128 - (384 * 128 + 6 * 4 * 384) - 4 * 128 * 128
    assert traffic(model, INPUTS, dense=True).bytes_per_token(None) == whole.bytes_per_token(None)


def test_a_text_that_ends_at_once_is_no_short_measurement(tmp_path: Path) -> None:
    """And transformers, which is not told of a least length, has nothing to say."""
    model = loaded(tmp_path)
    found = traffic(model, INPUTS)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        first = decode(model, INPUTS, settings_for(model, max_new_tokens=1)).tokens[0]
        model.generation_config.eos_token_id = first
        assert len(decode(model, INPUTS, settings_for(model, max_new_tokens=8)).tokens) == 1
        assert traffic(model, INPUTS) == found
    finally:
        logger.removeHandler(handler)
    assert said == []


def test_what_the_model_cannot_run_on_is_said(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    odd = {"input_ids": torch.full((1, 3), 5000), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with pytest.raises(DataError, match="cannot generate from this prompt"):
        decode(model, odd, settings_for(model, max_new_tokens=4))
