"""certify_head_: the tokens of the whole head, from a few of its entries; all of them wherever that is wanted."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MaxLengthCriteria,
    StoppingCriteria,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.generation import LogitsProcessor

import lazyneuron as lazy
from lazyneuron.accelerate import certify_head_, head_status
from lazyneuron.accelerate.head import agreement, execution
from lazyneuron.accelerate.head.execution import CERTIFIED, CertifiedHead
from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.errors import AssumptionError, CheckpointError, ConfigError, DataError
from tests.kernels import needs_kernels

pytestmark = needs_kernels
ENTRIES, WIDTH = 3000, 64
DTYPES = [torch.bfloat16, torch.float32, torch.float16]
IDS = torch.randint(5, ENTRIES, (1, 9), generator=torch.Generator().manual_seed(0))
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 0, "eos_token_id": None}


def llama(dtype: torch.dtype = torch.bfloat16, **config: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=ENTRIES, **config)
    return LlamaForCausalLM(made).to(dtype).eval()


def certified(dtype: torch.dtype = torch.bfloat16, **config: Any) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A model with a certified head, and the same with its own."""
    model = llama(dtype, **config)
    plain = copy.deepcopy(model)
    certify_head_(model, [IDS], always=True)
    return model, plain


def head_alone(weight: Tensor) -> CertifiedHead:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data = weight
    return CertifiedHead(LinearSite(name="head", module=layer))


def generated(model: nn.Module, ids: Tensor = IDS, **options: Any) -> Tensor:
    torch.manual_seed(3)
    with torch.no_grad():
        found = model.generate(ids, **{**GREEDY, **options})
    return found if isinstance(found, Tensor) else found.sequences


def tied(dtype: torch.dtype, entries: int = ENTRIES) -> Tensor:
    """Rows that come twice, rows a last bit apart, rows of other sizes, and zeros."""
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(entries, WIDTH, generator=g).to(dtype)
    weight[1::4] = weight[::4]
    weight[2::4] = torch.nextafter(weight[::4], torch.tensor(torch.inf, dtype=dtype))
    weight[-400:-300] *= 1e-3
    weight[-300:-200] = weight[7]
    weight[-100:] = 0
    return weight


def kept(logits: Tensor, k: int) -> Tensor:
    """As top_k leaves them: below the k-th largest minus infinity."""
    return torch.where(logits < logits.topk(k, -1).values[..., -1:], -torch.inf, logits)


def differing(head: CertifiedHead, inputs: Tensor, k: int) -> int:
    """Tokens that choose otherwise than by the whole head; ``inputs`` is (calls, batch, width)."""
    wrong = 0
    for x in inputs:
        part, whole = head.largest(x[:, None], k), nn.functional.linear(x[:, None], head.module.weight)
        if not isinstance(part, Tensor):
            assert part.startswith("Too many candidates")
            continue
        same = (kept(part, k) == kept(whole, k)).all(-1) & (part.argmax(-1) == whole.argmax(-1))
        wrong += int((~same).sum())
    return wrong


@pytest.mark.parametrize("k", [1, 50])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("calls", [20, pytest.param(625, marks=pytest.mark.slow)])
def test_ten_thousand_tokens_are_those_of_the_whole_head(dtype: torch.dtype, calls: int, k: int) -> None:
    """Of random rows, and of rows of which most are ties; of 625 calls with each."""
    g = torch.Generator().manual_seed(2)
    inputs = torch.randn(calls, 8, WIDTH, generator=g).to(dtype)
    random = head_alone(torch.randn(20032, WIDTH, generator=g).to(dtype))
    ties = head_alone(tied(dtype, 20032))
    assert differing(random, inputs, k) == differing(ties, inputs, k) == 0
    assert random.tokens == 8 * calls and ties.tokens > 6 * calls
    assert random.computed / random.tokens < 1000  # of the union of eight tokens


def test_without_its_slack_it_would_choose_other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    head = head_alone(tied(torch.bfloat16))
    build = execution.build_sketch
    monkeypatch.setattr(execution, "build_sketch", lambda weight, bias: build(weight, bias).with_slack(0.0))
    inputs = torch.randn(40, 8, WIDTH, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    assert differing(head, inputs, 1) > 0


PART = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "few": {"do_sample": True, "top_k": 7, "temperature": 0.6},
    "top_k before top_p": {"do_sample": True, "top_k": 20, "top_p": 0.8, "min_p": 0.02},
    "several samples": {"do_sample": True, "top_k": 20, "num_return_sequences": 3},
    "criterion of transformers": {"stopping_criteria": [MaxLengthCriteria(15)]},
    "as a dictionary": {"return_dict_in_generate": True},
    "without a cache": {"use_cache": False, "max_new_tokens": 3},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("name", PART)
@pytest.mark.parametrize("dtype", DTYPES)
def test_where_few_logits_decide_few_are_computed(name: str, dtype: torch.dtype) -> None:
    model, plain = certified(dtype)
    assert torch.equal(generated(model, **PART[name]), generated(plain, **PART[name]))
    found = head_status(model)
    assert found.certified_calls > 2 and not found.fallbacks and found.last == CERTIFIED
    assert found.computed_a_token is not None and found.computed_a_token < ENTRIES / 8


class Bias(LogitsProcessor):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores + torch.linspace(0, 1, scores.shape[-1])


class Wait(StoppingCriteria):
    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.zeros(len(input_ids), dtype=torch.bool)


ALL = {
    "all entries": {"do_sample": True, "top_k": 0},
    "top_p alone": {"do_sample": True, "top_k": 0, "top_p": 0.8},
    "top_h before top_k": {"do_sample": True, "top_h": 0.4},
    "temperature of the extreme": {"do_sample": True, "temperature": 1e-5},
    "penalty": {"repetition_penalty": 1.3},
    "sampling with a penalty": {"do_sample": True, "repetition_penalty": 1.3},
    "no n-gram twice": {"no_repeat_ngram_size": 2},
    "suppressed": {"suppress_tokens": [4, 8]},
    "not yet the end": {"min_new_tokens": 4, "eos_token_id": 9},
    "beams": {"num_beams": 3},
    "sampled beams": {"num_beams": 2, "do_sample": True},
    "scores": {"output_scores": True, "return_dict_in_generate": True},
    "logits": {"output_logits": True, "return_dict_in_generate": True},
    "processor": {"logits_processor": [Bias()]},
    "prefix": {"prefix_allowed_tokens_fn": lambda batch, ids: list(range(40))},
    "prompt lookup": {"prompt_lookup_num_tokens": 2},
    "criterion": {"stopping_criteria": [Wait()]},
    "normalised": {"renormalize_logits": True},
    "many": {"do_sample": True, "top_k": ENTRIES // 2},
}


@pytest.mark.parametrize("name", ALL)
def test_whatever_needs_all_logits_gets_them(name: str) -> None:
    model, plain = certified()
    assert torch.equal(generated(model, **ALL[name]), generated(plain, **ALL[name]))
    found = head_status(model)
    assert found.certified_calls == 0 and sum(found.fallbacks.values()) > 2


def test_returned_scores_are_those_of_all_entries() -> None:
    model, plain = certified()
    options = {**GREEDY, "output_logits": True, "return_dict_in_generate": True}
    with torch.no_grad():
        got, wanted = (one.generate(IDS, **options).logits for one in (model, plain))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_assisted_decoding_gives_the_same_tokens() -> None:
    """Of the model that is assisted, and of the one that assists."""
    model, plain = certified()
    other, _ = certified(num_attention_bias=False)
    wanted = generated(plain)
    assert torch.equal(generated(model, assistant_model=plain), wanted)
    assert torch.equal(generated(plain, assistant_model=other), wanted)
    assert head_status(model).certified_calls == head_status(other).certified_calls == 0


@pytest.mark.parametrize("size", [2, 4, 8])
def test_batches_with_left_padding(size: int) -> None:
    model, plain = certified()
    ids = torch.randint(5, ENTRIES, (size, 9), generator=torch.Generator().manual_seed(size))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    assert torch.equal(generated(model, ids, attention_mask=mask), generated(plain, ids, attention_mask=mask))
    assert head_status(model).certified_calls == 12
    many = ids.repeat(5, 1)
    assert torch.equal(generated(model, many), generated(plain, many))
    if len(many) > 8:
        assert "more than 8 tokens at once" in head_status(model).fallbacks


def test_encoder_decoder_models() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4, "d_kv": 16, "vocab_size": ENTRIES}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).eval()
    plain = copy.deepcopy(model)
    certify_head_(model, always=True)
    assert torch.equal(generated(model), generated(plain))
    assert head_status(model).certified_calls == 12


def test_outside_of_generate_all_logits_are_computed() -> None:
    model, plain = certified()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
        generated(model)
        assert torch.equal(model(IDS[:, :1]).logits, plain(IDS[:, :1]).logits)
    assert bool(torch.isfinite(model(IDS).logits).all())
    model(IDS, labels=IDS).loss.backward()
    plain(IDS, labels=IDS).loss.backward()
    assert torch.equal(model.lm_head.weight.grad, plain.lm_head.weight.grad)


def test_an_exception_inside_generate_ends_the_request() -> None:
    model, plain = certified()

    class Stop(StoppingCriteria):
        __module__ = "transformers.ours"

        def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generated(model, stopping_criteria=[Stop()])
    assert torch.equal(model(IDS[:, :1]).logits, plain(IDS[:, :1]).logits)


def test_hidden_states_that_are_not_finite_take_the_whole_head() -> None:
    model, plain = certified(torch.float32)
    for one in (model, plain):
        with torch.no_grad():
            one.model.norm.weight[3] = torch.nan
    assert torch.equal(generated(model), generated(plain))
    found = head_status(model)
    assert found.certified_calls == 0 and any("Too many candidates" in why for why in found.fallbacks)


def test_hooks_see_all_logits() -> None:
    model, plain = certified()
    for watched in (model, model.lm_head):
        seen: list[Tensor] = []
        handle = watched.register_forward_hook(lambda _, args, out, seen=seen: seen.append(getattr(out, "logits", out)))
        assert torch.equal(generated(model), generated(plain))
        handle.remove()
        assert len(seen) == 12 and all(bool(torch.isfinite(logits).all()) for logits in seen)
    assert head_status(model).certified_calls == 0


def _in_place(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)).to(weight.dtype))


def _by_data(weight: nn.Parameter) -> None:
    weight.data[:] = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)).to(weight.dtype)


def _by_optimiser(weight: nn.Parameter) -> None:
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)).to(weight.dtype)
    torch.optim.SGD([weight], lr=1.0).step()
    weight.grad = None


@pytest.mark.parametrize("write", [_in_place, _by_data, _by_optimiser])
def test_changed_weights_are_noticed(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = certified()
    generated(model)
    for one in (model, plain):
        write(one.lm_head.weight)
    assert torch.equal(generated(model), generated(plain))
    found = head_status(model)
    assert found.fallbacks["The head's weights changed a short while ago."] == 12 and found.certified_calls == 12
    monkeypatch.setattr(execution, "REPACK_AFTER", 3)
    for one in (model, plain):
        write(one.lm_head.weight)
    generated(model, max_new_tokens=300)
    assert torch.equal(generated(model), generated(plain))
    assert head_status(model).last == CERTIFIED  # of another sketch


def test_weights_that_become_infinite_take_the_whole_head() -> None:
    model, plain = certified()
    model.lm_head.forward._packed = None
    for one in (model, plain):
        with torch.no_grad():
            one.lm_head.weight[5, 5] = torch.inf
    assert torch.equal(generated(model), generated(plain))
    assert head_status(model).certified_calls == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_that_is_not_bitwise_the_same_is_not_used(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another order of sums beside few rows, as of some kernels, is found out by comparing."""
    model, plain = certified(dtype)
    head = model.lm_head.forward
    linear = nn.functional.linear

    def other_order(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if len(weight) == ENTRIES:
            return linear(x.float(), weight.float()).to(x.dtype)
        return linear(x.float().flip(-1), weight.float().flip(-1)).to(x.dtype)

    monkeypatch.setattr(agreement.F, "linear", other_order)
    assert not agreement.rows_agree(model.lm_head.weight, torch.zeros(1, 1, WIDTH, dtype=dtype), 128)
    monkeypatch.undo()
    head._agreed.clear()
    monkeypatch.setattr(execution, "rows_agree", lambda weight, x, room: False)
    assert torch.equal(generated(model), generated(plain))
    assert head_status(model).certified_calls == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_compared_with_the_last_rows_too(dtype: torch.dtype) -> None:
    weight = torch.randn(3008, WIDTH).to(dtype)
    assert agreement.rows_agree(weight, torch.randn(1, 1, WIDTH).to(dtype), 128)
    assert [agreement.room_for(n) for n in (0, 1, 128, 129, 193, 257, 700)] == [128, 128, 128, 192, 256, 384, 768]


def test_the_receipt_and_restoring() -> None:
    model = llama()
    keys = list(model.state_dict())
    receipt = certify_head_(model, [IDS, IDS[:, :4]], always=True)
    (change,) = receipt.changes
    assert receipt.verb == "certify_head_" and change.block == "lm_head" and change.action == CERTIFIED
    details = change.details
    assert details["kept_bytes"] == 2 * ENTRIES * WIDTH
    assert ENTRIES * WIDTH <= details["added_bytes"] == head_status(model).added_bytes < 1.5 * ENTRIES * WIDTH
    most = {k: counts["most"] for k, counts in details["candidates_by_k"].items()}
    assert 1 <= most["1"] < most["50"] < ENTRIES and most["50"] >= 50
    assert lazy.Receipt.from_json(receipt.to_json()) == lazy.Receipt.from_json(receipt.to_json())
    assert list(model.state_dict()) == keys and lazy.receipts(model) == (receipt,)
    with pytest.raises(ConfigError, match="certified already"):
        certify_head_(model, [IDS])
    lazy.restore_(model, receipt)
    assert not {"generate", "_get_logits_processor"} & set(model.__dict__) and "forward" not in model.lm_head.__dict__
    with pytest.raises(ConfigError, match="no certified head"):
        head_status(model)


def test_a_head_that_is_no_faster_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazyneuron.accelerate.head.transform.least_us", lambda calls: [5.0, 5.0])
    model = llama()
    receipt = certify_head_(model, [IDS])
    assert receipt.changes[0].action == "dense" and receipt.changes[0].details["added_bytes"] == 0
    assert "forward" not in model.lm_head.__dict__ and "generate" not in model.__dict__
    lazy.restore_(model, receipt)
    times = iter([[9.0, 5.0], [5.0, 9.0]])
    monkeypatch.setattr("lazyneuron.accelerate.head.transform.least_us", lambda calls: next(times))
    assert certify_head_(model, [IDS]).changes[0].action == CERTIFIED
    generated(model)
    generated(model, do_sample=True)
    found = head_status(model)
    assert found.certified_calls == 12 and sum(found.fallbacks.values()) == 12


def test_copies_pickles_and_saved_models(tmp_path: Path) -> None:
    model, plain = certified()
    wanted = generated(plain)
    twin = copy.deepcopy(model)
    assert twin.lm_head.forward is not model.lm_head.forward and twin.generate.model is twin
    assert torch.equal(generated(twin), wanted) and head_status(twin).certified_calls == 12
    assert head_status(model).certified_calls == 0
    held = io.BytesIO()
    torch.save(model, held)
    held.seek(0)
    again = torch.load(held, weights_only=False)
    assert torch.equal(generated(again), wanted) and head_status(again).certified_calls == 12
    lazy.save(model, tmp_path)
    fresh = llama()
    lazy.load_(fresh, tmp_path)
    assert torch.equal(generated(fresh), wanted) and head_status(fresh).certified_calls == 12


def test_beside_an_accelerated_model() -> None:
    model = llama(hidden_act="relu")
    plain = copy.deepcopy(model)
    first = lazy.accelerate_(model, impl="native")
    second = certify_head_(model, [IDS], always=True)
    same = copy.deepcopy(plain)
    lazy.accelerate_(same, impl="native")
    assert torch.equal(generated(model), generated(same))
    assert head_status(model).certified_calls == 12
    lazy.restore_(model, second)
    lazy.restore_(model, first)
    assert torch.equal(generated(model), generated(plain))


def test_compiled_models_compute_all_entries() -> None:
    model, plain = certified()
    model.forward = torch.compile(model.forward, backend="eager")
    assert torch.equal(generated(model, max_new_tokens=3), generated(plain, max_new_tokens=3))


def gemma2() -> Gemma2ForCausalLM:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Gemma2ForCausalLM(Gemma2Config(**sizes, num_key_value_heads=1, head_dim=32, vocab_size=99)).eval()


def llama_scaled() -> nn.Module:
    class Scaled(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits[..., 4] = -9.0
            return out

    model = llama()
    model.__class__ = Scaled
    return model


def whisper() -> WhisperForConditionalGeneration:
    sizes = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    config = WhisperConfig(**sizes, decoder_attention_heads=2, vocab_size=99, pad_token_id=0)
    return WhisperForConditionalGeneration(config).eval()


def with_bias() -> LlamaForCausalLM:
    model = llama()
    model.lm_head.bias = nn.Parameter(torch.zeros(ENTRIES, dtype=torch.bfloat16))
    return model


def quantised() -> LlamaForCausalLM:
    model = llama()
    lazy.accelerate_(model, rest="int8")
    return model


def hooked() -> LlamaForCausalLM:
    model = llama()
    model.lm_head.register_forward_hook(lambda *_: None)
    return model


REFUSED = {
    "no language model": (lambda: nn.Linear(4, 4), ConfigError, "transformers models that generate"),
    "capped": (gemma2, ConfigError, "scaled, capped or masked"),
    "scaled": (llama_scaled, ConfigError, "scaled, capped or masked"),
    "own generate": (whisper, ConfigError, "a method generate of its own"),
    "bias": (with_bias, ConfigError, "has a bias"),
    "quantised": (quantised, ConfigError, "QuantisedLinear; only plain"),
    "hooked": (hooked, ConfigError, "has hooks"),
    "meta": (lambda: llama().to("meta"), ConfigError, "on meta"),
    "wide": (lambda: llama(torch.float64), ConfigError, "float64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_certified_is_refused_with_the_reason(name: str) -> None:
    make, error, message = REFUSED[name]
    model = make()
    before = dict(model.__dict__)
    with pytest.raises(error, match=message):
        certify_head_(model)
    assert dict(model.__dict__) == before


def test_bad_arguments() -> None:
    model = llama()
    with pytest.raises(ConfigError, match="progress is a function"):
        certify_head_(model, progress="loud")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="always is True or False"):
        certify_head_(model, always=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no batches"):
        certify_head_(model, [])
    with pytest.raises(DataError, match="cannot run on this batch"):
        certify_head_(model, [torch.full((1, 3), ENTRIES)])
    with pytest.raises(DataError, match="single Tensor"):
        certify_head_(model, IDS)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises((AssumptionError, ConfigError), match=r"finite|NaN"):
        certify_head_(model)
    with pytest.raises(TypeError):
        certified()[0].generate(IDS, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def test_a_saved_receipt_that_does_not_fit(tmp_path: Path) -> None:
    model, _ = certified()
    lazy.save(model, tmp_path)
    with pytest.raises(CheckpointError):
        lazy.load_(with_bias(), tmp_path)
