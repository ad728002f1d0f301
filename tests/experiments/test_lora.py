"""Adapters as the authors' fine-tuning has them: which layers get one, what is trained, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.training.lora import add_lora_
from lazyneuron.induce import DoublyBiased, sparsify_

pytest.importorskip("peft", reason="PEFT is not installed")


class Encoder(nn.Module):
    """A convolution, torch's packed attention, positions and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.positions = nn.Conv1d(3, 16, 1), nn.Embedding(5, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x.mT).mT + self.positions.weight))


def test_packed_attention_gets_its_adapters_as_one():
    model, x = Encoder(), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    wanted = model(x)
    adapted = add_lora_(model, np.int64(2))
    parts = ("self_attn", "linear1", "linear2")
    assert adapted == (*(f"encoder.layers.{k}.{part}" for k in (0, 1) for part in parts), "head")
    torch.testing.assert_close(model(x), wanted)  # the adapters' product is 0
    model(x).square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    lora = [n for n in trained if "lora_B" in n]
    assert len(lora) == 9 and set(lora) <= reached  # four layers of each encoder layer (three packed in one), the head
    frozen = {n for n in dict(model.named_parameters()) if n not in trained}
    assert {"stem.weight", "positions.weight"} < frozen and "stem.bias" in trained
    assert all(model.get_parameter(n).ndim > 1 for n in frozen)
    receipt = sparsify_(model, DoublyBiased(zeroth_bias=False))
    assert [change.action for change in receipt.changes] == ["replaced"] * 2


@pytest.mark.parametrize("rank", [0, -1, 2.5, math.nan, True, "4", None])
def test_a_rank_is_a_whole_number_from_one_on(rank):
    with pytest.raises(ConfigError, match="The rank of adapters is a whole number"):
        add_lora_(Encoder(), rank)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (None, "A model is a torch.nn.Module"),
        (nn.Linear(3, 3), "not a layer"),
        (nn.Sequential(nn.ReLU()), "No linear layer"),
        (nn.Sequential(nn.MultiheadAttention(8, 2, kdim=4)), "keys or values of another width"),
    ],
)
def test_what_takes_no_adapter_is_refused(model, sentence):
    with pytest.raises(ConfigError, match=sentence):
        add_lora_(model, 2)


def test_a_second_round_of_adapters_is_refused():
    model = Encoder()
    add_lora_(model, 2)
    keys = list(model.state_dict())
    with pytest.raises(ConfigError, match="carries adapters already"):
        add_lora_(model, 2)
    assert list(model.state_dict()) == keys
