"""Perplexity on a text, against logits taken one token at a time and against a model that knows nothing."""

from __future__ import annotations

import math

import pytest
import torch

from lazyneuron.core.errors import DataError
from lazyneuron.generate import fit_of
from tests.generate.models import BUILD, VOCABULARY

IDS = torch.randint(4, VOCABULARY, (45,), generator=torch.Generator().manual_seed(0))


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return BUILD["llama"]().eval()


@pytest.mark.parametrize("length", [2, 16, 44, 45, 100])
@torch.no_grad()
def test_every_token_but_the_first_of_a_window_is_predicted(length):
    model = _model()
    logs = []
    for start in range(0, len(IDS), length):
        window = IDS[start : start + length]
        for k in range(1, len(window)):
            logits = model(input_ids=window[None, :k], use_cache=False).logits[0, -1].double()
            logs.append(float(logits.log_softmax(0)[window[k]]))
    found = fit_of(model, IDS, length=length)
    assert (found.tokens, found.length) == (len(logs), length)
    assert found.perplexity == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity():
    model = _model()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    shares: list[float] = []
    found = fit_of(model, IDS, length=16, advance=shares.append)
    assert found.perplexity == pytest.approx(VOCABULARY, rel=1e-6)
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1


@pytest.mark.parametrize(("ids", "length"), [(IDS[:1], 16), (IDS, 1), (IDS[None], 16)])
def test_too_little_to_predict_is_refused(ids, length):
    with pytest.raises(DataError, match="at least two tokens"):
        fit_of(_model(), ids, length=length)
