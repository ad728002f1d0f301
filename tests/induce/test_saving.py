"""transformers' own saving of a changed model says what it would lose, or saves a config that says it."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

import lazyneuron as lazy
from lazyneuron.accelerate.machine import costs
from lazyneuron.blocks import Activation
from lazyneuron.core.errors import CheckpointError, ConfigError, DataError
from tests.accelerate.conftest import made_up
from tests.blocks.architectures import KNOWN
from tests.core.resealed import reseal

LOST = "without what sparsify_ .* changed.*`save` and `from_pretrained` of lazyneuron"


@pytest.fixture(autouse=True)
def a_machine(monkeypatch):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))
    monkeypatch.setattr(costs, "are_known", lambda dtype: True)


def bert(kind=BertModel, **more):
    torch.manual_seed(0)
    sizes = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return kind(BertConfig(**sizes, **more)).eval()


def run(model):
    with torch.no_grad():
        found = model(torch.arange(12).reshape(2, 6) + 3)
    return next(iter(found.values()))


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert", "llama", "gemma"])
def test_relu_in_every_block_is_saved_in_the_config(tmp_path, name):
    model = KNOWN[name].model()
    own = model.config.to_dict()
    receipt = lazy.sparsify_(model, lazy.Relufy())
    if name != "llama":
        lazy.accelerate_(model)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert {b.activation.kind for b in lazy.find_blocks(again)} == {"relu"}
    if name == "llama":
        with torch.no_grad():
            a, b = (next(iter(m(**KNOWN[name].batch).values())) for m in (model, again))
        assert torch.equal(a, b)
        lazy.restore_(model, receipt)
    facts = model.config.to_dict()
    assert all(facts[key] == value for key, value in own.items() if key not in ("architectures", "dtype"))


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        (BertModel, lazy.Relufy(activation=Activation("fatrelu", (0.1,)))),
        (BertModel, lazy.Relufy(blocks=("*.0*",))),
        (BertModel, lazy.DoublyBiased()),
        (BertForMaskedLM, lazy.Relufy()),  # its head has the same activation, which is not to change
    ],
)
def test_what_the_config_cannot_say_is_said_aloud(tmp_path, kind, recipe):
    model = bert(kind)
    receipt = lazy.sparsify_(model, recipe)
    with pytest.warns(UserWarning, match=LOST):
        model.save_pretrained(tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.warns(UserWarning, match=LOST):
            other.save_pretrained(tmp_path)
        lazy.restore_(other, receipt)
    assert model.config.hidden_act == "gelu"
    lazy.restore_(model, receipt)
    fresh = bert(kind)
    assert vars(model).keys() == vars(fresh).keys() and all(map(torch.equal, model.parameters(), fresh.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path)
    assert torch.equal(run(kind.from_pretrained(tmp_path)), run(fresh))


def test_trainer_and_sentence_transformer_save_through_it(tmp_path):
    model = bert()
    lazy.sparsify_(model, lazy.DoublyBiased())
    arguments = TrainingArguments(output_dir=str(tmp_path / "a"), use_cpu=True, report_to="none")
    with pytest.warns(UserWarning, match=LOST):
        Trainer(model=model, args=arguments).save_model(str(tmp_path / "a"))
    library = pytest.importorskip("sentence_transformers")
    (tmp_path / "dense").mkdir()
    bert().save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one"]))
    encoder = library.SentenceTransformer(str(tmp_path / "dense"), device="cpu")
    lazy.sparsify_(encoder, lazy.DoublyBiased())
    with pytest.warns(UserWarning, match=LOST) as said:
        encoder.save(str(tmp_path / "b"))
    assert sum("save_pretrained writes" in str(w.message) for w in said) == 1


def test_changes_on_changes_and_compact(tmp_path):
    model = bert()
    first = lazy.sparsify_(model, lazy.Relufy())
    with torch.no_grad():
        model.encoder.layer[0].intermediate.dense.weight[3] = 0
        model.encoder.layer[0].intermediate.dense.bias[3] = -1
    second = lazy.compact_(model)
    with pytest.warns(UserWarning, match="without what sparsify_ Relufy, compact_ changed"):
        model.save_pretrained(tmp_path)
    lazy.restore_(model, second)
    model.save_pretrained(tmp_path)
    assert torch.equal(run(AutoModel.from_pretrained(tmp_path)), run(model))
    lazy.restore_(model, first)
    assert "save_pretrained" not in vars(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_pretrained_brings_class_weights_and_changes_back(tmp_path, dtype):
    model = bert(BertForMaskedLM).to(dtype)
    lazy.sparsify_(model, lazy.DoublyBiased(max_len=8))
    nn.init.normal_(model.bert.encoder.layer[0].attention.output.LayerNorm.zeroth_bias.bias, std=0.01)
    (tmp_path / "tokenizer.json").write_text("kept")
    lazy.save(model, tmp_path)
    again = lazy.from_pretrained(tmp_path)
    assert type(again) is BertForMaskedLM and not again.training and again.dtype == dtype
    assert torch.equal(run(again), run(model))
    assert [r.config for r in lazy.receipts(again)] == [r.config for r in lazy.receipts(model)]
    assert (tmp_path / "tokenizer.json").read_text() == "kept"
    with pytest.raises(OSError, match="no file named"):  # transformers does not open it as another model
        AutoModel.from_pretrained(tmp_path)


def test_a_language_model_generates_the_same(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2))
    model.generation_config.max_new_tokens = 5
    lazy.sparsify_(model, lazy.Relufy())
    lazy.save(model, tmp_path)
    assert lazy.from_pretrained(tmp_path).generation_config.max_new_tokens == 5


def test_what_cannot_be_built_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="does not hold a saved model"):
        lazy.from_pretrained(tmp_path)
    lazy.save(nn.Linear(2, 2), tmp_path)
    with pytest.raises(CheckpointError, match="holds no transformers config; build the model"):
        lazy.from_pretrained(tmp_path)
    for config in (3, {}, {"model_type": "none", "architectures": ["X"]}, {"model_type": "bert", "architectures": []}):
        reseal(tmp_path / "receipts.json", lambda content, config=config: {**content, "config": config})
        with pytest.raises(CheckpointError, match="Cannot build the model"):
            lazy.from_pretrained(tmp_path)


def test_receipts_that_are_not_in_force_are_refused(tmp_path):
    model = bert()
    receipt = lazy.sparsify_(model, lazy.Relufy())
    assert lazy.receipts(model) == (receipt,)
    lazy.restore_(model, receipt)
    with pytest.raises(ConfigError, match="is not in force on this BertModel"):
        lazy.save(model, tmp_path, receipt)
    lazy.sparsify_(model.encoder, lazy.Relufy())
    with pytest.raises(ConfigError, match="A change was made on 'encoder', a part of this BertModel"):
        lazy.save(model, tmp_path)

    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"a": object()}

    with pytest.raises(CheckpointError, match="cannot be saved without pickle"):
        lazy.save(Odd(2, 2), tmp_path)
    with pytest.raises(DataError, match="Cannot write to"):
        lazy.save(nn.Linear(2, 2, device="meta"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_loading_is_all_or_nothing(tmp_path):
    model = bert()
    lazy.sparsify_(model, lazy.Relufy())
    lazy.save(model, tmp_path, lazy.accelerate_(model))

    def slower(content):
        content["receipts"][1]["config"]["impl"] = "no such level"

    reseal(tmp_path / "receipts.json", slower)
    fresh = bert()
    nn.init.zeros_(fresh.embeddings.word_embeddings.weight)
    before, modules = copy.deepcopy(fresh.state_dict()), [type(m) for m in fresh.modules()]
    with pytest.raises(CheckpointError, match="The saved accelerate_ does not fit this model: impl is one of"):
        lazy.load_(fresh, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    assert not lazy.receipts(fresh) and [type(m) for m in fresh.modules()] == modules
    assert [r.verb for r in lazy.load_(fresh, tmp_path, accelerate=False)] == ["sparsify_"]
    assert torch.equal(run(fresh), run(lazy.from_pretrained(tmp_path, accelerate=False)))


class OneForAll(nn.Sequential):
    """A buffer that is one number in memory: torch refuses to write into it, after it has written all others."""

    def __init__(self):
        super().__init__(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))
        self.register_buffer("scale", torch.ones(1).expand(5))


def test_weights_that_cannot_be_written_leave_the_model_as_it_was(tmp_path):
    model = OneForAll()
    lazy.sparsify_(model, lazy.Relufy())
    lazy.save(model, tmp_path)
    fresh = OneForAll()
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(CheckpointError, match=r"This OneForAll does not take its weights back: .*single memory"):
        lazy.load_(fresh, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    assert isinstance(fresh[1], nn.GELU) and not lazy.receipts(fresh)


def test_nothing_is_loaded_onto_the_meta_device(tmp_path):
    lazy.save(nn.Linear(2, 2), tmp_path)
    with pytest.raises(CheckpointError, match=r"2 tensors of this Linear .* lie on the meta device"):
        lazy.load_(nn.Linear(2, 2, device="meta"), tmp_path)
