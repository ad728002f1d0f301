"""Accelerated language models under ``torch.compile``: what they generate has the bits of eager mode, at its speed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM, StaticCache, T5Config, T5ForConditionalGeneration

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.growing import ModelForward
from tests.accelerate.test_decoder_layers import IDS, llama
from tests.kernels import needs_kernels

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # by torch.compile itself
SETTINGS = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


class Graphs:
    """A backend that counts the nodes of the graphs that it was given."""

    def __init__(self) -> None:
        self.nodes: list[int] = []

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.nodes.append(len(graph.graph.nodes))
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def opt() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
    return OPTForCausalLM(OPTConfig(**sizes, word_embed_proj_dim=64, eos_token_id=None, pad_token_id=0)).eval()


def t5() -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
    config = T5Config(**sizes, decoder_start_token_id=0, eos_token_id=None, pad_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def compile_whole(model: Any, backend: Graphs) -> None:
    model.compile(dynamic=True, backend=backend)


def compile_forward(model: Any, backend: Graphs) -> None:
    model.forward = torch.compile(model.forward, dynamic=True, backend=backend)


def compile_inside(model: Any, backend: Graphs) -> None:
    model.model.compile(dynamic=True, backend=backend)


def compile_layers(model: Any, backend: Graphs) -> None:
    for layer in model.model.layers:
        layer.compile(dynamic=True, backend=backend)


def generated(model: Any, **options: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        out = model.generate(IDS, **SETTINGS, **options)
    return out.sequences, torch.stack(out.logits)


@pytest.mark.parametrize("way", [compile_whole, compile_forward, compile_inside, compile_layers])
def test_whatever_is_compiled_generates_the_bits_of_eager_mode_without_a_graph(
    way: Callable[[Any, Graphs], None], stepped: list[int]
) -> None:
    model = llama(torch.bfloat16)
    lazy.accelerate_(model, weights="int8", rest="int8")
    wanted = generated(model)
    stepped.clear()
    graphs = Graphs()
    way(model, graphs)
    assert all(map(torch.equal, generated(model), wanted))
    assert graphs.nodes == [] and stepped == [0, 1] * 5
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert all(map(torch.equal, generated(model), wanted))


@pytest.mark.parametrize("build", [opt, t5])
def test_models_without_fused_layers(build: Callable[[], Any]) -> None:
    model, graphs = build(), Graphs()
    lazy.accelerate_(model, weights="int4", rest="int8")
    wanted = generated(model)
    model.compile(dynamic=True, backend=graphs)
    assert all(map(torch.equal, generated(model), wanted)) and graphs.nodes == []
    assert all(map(torch.equal, generated(model, num_beams=1), wanted))


@pytest.mark.slow
def test_calls_without_a_growing_cache_are_compiled() -> None:
    model, graphs = llama(), Graphs()
    lazy.accelerate_(model, weights="int8", rest="int8")
    with torch.no_grad():
        wanted = model(IDS).logits
        compiled = torch.compile(model, backend=graphs)
        torch.testing.assert_close(compiled(IDS, use_cache=False).logits, wanted, rtol=1e-3, atol=1e-4)
        assert sum(graphs.nodes) > 30  # norms, attention and blocks of both layers
        before = len(graphs.nodes)
        cache = StaticCache(config=model.config, max_cache_len=16)
        found = compiled(IDS, past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        assert len(graphs.nodes) > before


def test_copies_pickles_and_restored_models(tmp_path: Any) -> None:
    model = llama()
    receipt = lazy.accelerate_(model, rest="int8")
    wanted = generated(model)
    lazy.save(model, tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), lazy.from_pretrained(tmp_path)):
        graphs = Graphs()
        assert isinstance(other.forward, ModelForward) and other.forward.module is other
        other.compile(backend=graphs)
        assert all(map(torch.equal, generated(other), wanted)) and graphs.nodes == []
    lazy.restore_(model, receipt)
    assert all("forward" not in module.__dict__ for module in (model, model.model))


def test_models_that_take_no_cache_are_compiled_as_ever() -> None:
    model, graphs = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).eval(), Graphs()
    lazy.accelerate_(model, rest="int8", weights="int8")
    x = torch.randn(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=graphs)(x), model(x))
    assert graphs.nodes and not isinstance(model.forward, ModelForward)
