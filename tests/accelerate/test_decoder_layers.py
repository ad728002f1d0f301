"""Decoder layers of quantised models: one operator a token, with the bits of the layers' own code."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.decoder import LayerForward
from lazyneuron.accelerate.quantised.decoder_find import find_decoder_layers
from lazyneuron.accelerate.quantised.norms import find_norms
from tests.kernels import needs_kernels

pytestmark = needs_kernels
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 96, "pad_token_id": 0, "eos_token_id": None}
IDS = torch.randint(5, 96, (2, 9), generator=torch.Generator().manual_seed(0))
SUCH = {
    "Llama": {"hidden_act": "relu"},
    "Mistral": {"sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
}
OTHER = {
    "Gemma2": {"head_dim": 16},
    "Olmo2": {},
    "Granite": {"residual_multiplier": 0.5},
}  # norms behind, caps, factors


def build(family: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    model: nn.Module = getattr(transformers, f"{family}ForCausalLM")(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model.to(dtype).eval()


def llama(dtype: torch.dtype = torch.float32) -> Any:
    return build("Llama", {"hidden_act": "relu"}, dtype)


def forwards(model: nn.Module) -> list[LayerForward]:
    held = (module.__dict__.get("forward") for module in model.modules())
    return [forward for forward in held if isinstance(forward, LayerForward)]


def by_own_code(model: nn.Module) -> Any:
    """A copy whose decoder layers run their class's code."""
    copied = copy.deepcopy(model)
    for forward in forwards(copied):
        del forward.module.forward
    return copied


def decode(model: Any, *, ids: Tensor = IDS, steps: int = 6, cache: Any = None, **options: Any) -> Tensor:
    """Logits of single tokens that follow a prompt."""
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values if cache is None else cache
        rows = [model(ids[:, k : k + 1], past_key_values=cache, use_cache=True, **options).logits for k in range(steps)]
    return torch.cat(rows, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", SUCH)
def test_every_bit_is_that_of_the_layers_own_code(family: str, dtype: torch.dtype, stepped: list[int]) -> None:
    model = build(family, SUCH[family], dtype)
    lazy.accelerate_(model, weights="int8", rest="int4" if family == "Llama" else "int8")
    wanted = decode(by_own_code(model))
    assert not stepped
    assert torch.equal(decode(model), wanted) and stepped == [0, 1] * 6


@pytest.mark.parametrize("family", OTHER)
def test_layers_that_compute_something_else_are_left_alone(family: str) -> None:
    model = build(family, OTHER[family])
    assert find_decoder_layers(model, find_norms(model)) == {}
    lazy.accelerate_(model, rest="int8")
    assert not forwards(model)


def test_a_changed_formula_is_told_from_its_numbers() -> None:
    """Each of these differs from the definition in one place only."""
    model = llama()
    layer, kind = model.model.layers[0], type(model.model.layers[0])
    attention = type(layer.self_attn)

    class Scaled(kind):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
            return super().forward(hidden_states, **kwargs) * 1.0001

    class Unturned(attention):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Tensor, position_embeddings: Any, **kwargs: Any) -> Any:
            cos, sin = position_embeddings
            return super().forward(hidden_states, position_embeddings=(cos, -sin), **kwargs)

    class Capped(attention):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
            return super().forward(hidden_states.clamp(-4, 4), **kwargs)

    class Masked(kind):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
            return super().forward(hidden_states, attention_mask=torch.zeros(1), **kwargs)

    assert len(find_decoder_layers(model, find_norms(model))) == 2
    for holder, other in ((layer, Scaled), (layer.self_attn, Unturned), (layer.self_attn, Capped), (layer, Masked)):
        before, holder.__class__ = type(holder), other
        assert list(find_decoder_layers(model, find_norms(model))) == ["model.layers.1"], other
        holder.__class__ = before
    layer.self_attn.scaling *= 1.5  # a setting of its own is taken in
    assert find_decoder_layers(model, find_norms(model))["model.layers.0"].scale == layer.self_attn.scaling


def test_what_else_happens_to_a_cache(stepped: list[int]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    own = by_own_code(model)

    def story(runner: Any) -> list[Tensor]:
        """Snapshots, crops, reordered and copied caches, old tensors put back."""
        with torch.no_grad():
            cache = runner(IDS, use_cache=True).past_key_values
        found = [decode(runner, cache=cache, steps=2)]
        snapshot = [(layer.keys, layer.values) for layer in cache.layers]
        kept = [(k.clone(), v.clone()) for k, v in snapshot]
        twins = [copy.copy(layer) for layer in cache.layers]
        deep = copy.deepcopy(cache)
        found.append(decode(runner, cache=cache, steps=3))
        other = DynamicCache()
        other.layers = twins
        found.append(decode(runner, cache=other, ids=IDS.flip(1), steps=2))
        found.append(decode(runner, cache=cache, steps=1))  # what the copy wrote is not in it
        assert all(
            torch.equal(a, b) for one, two in zip(snapshot, kept, strict=True) for a, b in zip(one, two, strict=True)
        )
        cache.crop(-2)
        found.append(decode(runner, cache=cache, ids=IDS.flip(1), steps=3))
        cache.reorder_cache(torch.tensor([1, 1]))
        found.append(decode(runner, cache=cache, steps=2))
        found.append(decode(runner, cache=deep, steps=2))
        for layer, (keys, values) in zip(cache.layers, snapshot, strict=True):
            layer.keys, layer.values = keys, values
        found.append(decode(runner, cache=cache, ids=IDS.flip(1), steps=2))
        found.append(decode(runner, cache=other, steps=1))
        return found

    wanted = story(own)
    assert not stepped
    assert all(torch.equal(a, b) for a, b in zip(story(model), wanted, strict=True)) and len(stepped) == 2 * 18


def test_a_cache_goes_from_one_mode_of_torch_to_another(stepped: list[int]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    wanted = decode(by_own_code(model))
    found, modes = [], (torch.inference_mode, torch.no_grad, torch.no_grad, torch.inference_mode, torch.no_grad)
    with torch.inference_mode():
        cache = model(IDS, use_cache=True).past_key_values
    for k, mode in enumerate(modes):
        with mode():
            found.append(model(IDS[:, k : k + 1], past_key_values=cache, use_cache=True).logits.clone())
    assert torch.equal(torch.cat(found, 1), wanted[:, :5]) and len(stepped) == 10
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.scale.mul_(2)  # still a buffer like any other


def test_memory_grows_while_it_decodes(stepped: list[int]) -> None:
    model = llama(torch.bfloat16)
    lazy.accelerate_(model, weights="int8", rest="int8")
    options = {"max_new_tokens": 180, "do_sample": False}
    assert torch.equal(model.generate(IDS, **options), by_own_code(model).generate(IDS, **options))
    assert len(stepped) == 2 * 179  # two layers; the first token comes with the prompt


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, {"do_sample": True}, {"prompt_lookup_num_tokens": 3}, {"cache_implementation": "static"}],
    ids=["beams", "sampling", "assisted", "static"],
)
def test_other_ways_to_generate(options: dict[str, Any]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    found = []
    for runner in (model, by_own_code(model)):
        torch.manual_seed(0)
        found.append(runner.generate(IDS[:1], max_new_tokens=12, **options))
    assert torch.equal(*found)


def test_anything_else_runs_the_layers_own_code(stepped: list[int]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    wanted = decode(by_own_code(model), steps=2)
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[0, :3] = 0
    with torch.no_grad():
        decode(model, ids=IDS, steps=1, attention_mask=mask)
    assert not stepped  # left padding
    cache = model(IDS, use_cache=True).past_key_values
    assert model(IDS[:, :1], past_key_values=cache).logits.requires_grad and not stepped
    attention = model.model.layers[0].self_attn
    seen: list[Any] = []
    handle = attention.q_proj.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(decode(model, steps=2), wanted) and len(seen) == 3 and stepped == [1, 1]
    handle.remove()
    held = attention.o_proj
    attention.o_proj = nn.Sequential(held)
    stepped.clear()
    assert torch.equal(decode(model, steps=2), wanted) and stepped == [1, 1]
    attention.o_proj = held
    stepped.clear()
    assert torch.equal(decode(model, steps=2), wanted) and stepped == [0, 1, 0, 1]


def test_bytes_that_change_are_the_bytes_that_run(stepped: list[int]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    before = decode(model)
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        attention.k_proj.scale.data.mul_(1.5)
        model.model.layers[1].input_layernorm.weight.data.mul_(1.25)
        attention.v_proj.scale = attention.v_proj.scale.clone() * 2  # no longer behind the others
    changed = decode(model)
    assert not torch.equal(changed, before) and torch.equal(changed, decode(by_own_code(model)))
    assert len(stepped) == 24


def test_a_setting_that_changes_later_is_seen(stepped: list[int]) -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    decode(model)
    for layer in model.model.layers:
        layer.self_attn.scaling *= 2
        layer.forward._calls = layer.forward.stack._tokens = 63
    stepped.clear()
    assert torch.equal(decode(model), decode(by_own_code(model))) and not stepped


def test_copies_pickles_and_folders_step_too(tmp_path: Any, stepped: list[int]) -> None:
    model = llama()
    receipt = lazy.accelerate_(model, weights="int8", rest="int8")
    wanted = decode(by_own_code(model))
    lazy.save(model, tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), lazy.from_pretrained(tmp_path)):
        stepped.clear()
        assert torch.equal(decode(other), wanted) and len(stepped) == 12
        q, k, v = (other.model.layers[0].self_attn.get_submodule(f"{n}_proj") for n in "qkv")
        assert q.rows.data_ptr() + q.rows.nbytes == k.rows.data_ptr()  # one product reads all three
        assert k.rows.data_ptr() + k.rows.nbytes == v.rows.data_ptr()
    lazy.restore_(model, receipt)
    assert not forwards(model)


def test_compiled_decoding_holds_a_layer_as_one_operator() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    graphs: list[list[str]] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes if "lazyneuron" in str(node.target)])
        return graph

    step = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    own = by_own_code(model)
    with torch.no_grad():
        caches = [runner(IDS, use_cache=True).past_key_values for runner in (model, own)]
        hooked = []
        for k in range(4):
            if k == 2:  # noticed when it runs, without compiling again
                model.model.layers[1].mlp.register_forward_hook(lambda *_: hooked.append(1))
                model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: hooked.append(2))
            got = step(IDS[:, k : k + 1], past_key_values=caches[0], use_cache=True).logits
            wanted = own(IDS[:, k : k + 1], past_key_values=caches[1], use_cache=True).logits
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)  # the last norm is compiled
    assert hooked == [2, 1, 2, 1]
    assert [names.count("lazyneuron.decoder_layer.default") for names in graphs] == [2] * len(graphs)
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(caches[0].layers, caches[1].layers, strict=True))
    del model, step
