"""Decoder layers that run together give the bits of layers that run one by one, whatever happens in between."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.execution import accelerated_blocks, every_neuron
from lazyneuron.accelerate.quantised.stack import Stack
from tests.accelerate.test_decoder_layers import IDS, SUCH, build, by_own_code, decode, forwards
from tests.kernels import needs_kernels

pytestmark = needs_kernels


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every call of the operator, by the number of layers in it."""
    seen: list[int] = []
    real = Stack._run

    def run(self: Stack, *args: Any) -> Any:
        made = real(self, *args)
        if made is not None:
            seen.append(len(made.layers))
        return made

    monkeypatch.setattr(Stack, "_run", run)
    return seen


def deep(weights: str = "int8") -> Any:
    model = build("Llama", {"hidden_act": "relu", "num_hidden_layers": 4})
    lazy.accelerate_(model, weights=weights, rest="int8")
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", SUCH)
@pytest.mark.parametrize("weights", ["int8", "int4", "keep"])
def test_one_operator_a_token(family: str, dtype: torch.dtype, weights: str, together: list[int]) -> None:
    model = build(family, {**SUCH[family], "num_hidden_layers": 3, "hidden_act": "relu"}, dtype)
    lazy.accelerate_(model, weights=weights, rest="int8")
    wanted = decode(by_own_code(model))
    assert not together and torch.equal(decode(model), wanted) and together == [3] * 5  # the first token makes room


def test_a_block_with_biases_and_a_second_factor_that_is_rectified(together: list[int]) -> None:
    model = build("Llama", {"hidden_act": "relu", "mlp_bias": True, "attention_bias": True})
    lazy.accelerate_(model, weights="int4", rest="int4")
    for run in accelerated_blocks(model):
        assert all(layer.bias is not None for layer in (run._first, run._up, run._down))
    assert torch.equal(decode(model), decode(by_own_code(model))) and together == [2] * 5


Change = Callable[[Any], Any]


def _in_layer(path: str, change: Change) -> Change:
    return lambda model: change(model.model.layers[1].get_submodule(path))


def _in_place(module: nn.Module) -> None:
    held = module._buffers.get("scale", module._parameters.get("weight"))
    with torch.no_grad():
        held.mul_(1.5)


def _replaced(module: nn.Module) -> None:
    if "scale" in module._buffers:
        module.scale = module.scale.clone() * 2
    else:
        module.weight = nn.Parameter(module.weight.detach() * 2)


def _biased(module: nn.Module) -> None:
    if "scale" in module._buffers:
        module._buffers["bias"] = torch.ones(64)
    else:
        module.bias = nn.Parameter(torch.ones(64), requires_grad=False)


CHANGES: dict[str, Change] = {
    "a hook on the layer": _in_layer("", lambda m: m.register_forward_hook(lambda _, args, y: y * 2)),
    "a hook before the layer": _in_layer("", lambda m: m.register_forward_pre_hook(lambda _, args: (args[0] * 2,))),
    "a hook on the attention": _in_layer("self_attn.q_proj", lambda m: m.register_forward_hook(lambda _, a, y: y * 2)),
    "a hook on the block": _in_layer("mlp", lambda m: m.register_forward_hook(lambda _, a, y: y * 2)),
    "a hook within the block": _in_layer("mlp.up_proj", lambda m: m.register_forward_hook(lambda _, a, y: y * 2)),
    "another forward": _in_layer("mlp", lambda m: setattr(m, "forward", lambda x: x / 2)),
    "another forward of the layer": _in_layer("", lambda m: setattr(m, "forward", lambda x, **_: x / 2)),
    "another module": _in_layer("mlp", lambda m: setattr(m, "act_fn", nn.GELU())),
    "another norm": _in_layer("", lambda m: setattr(m, "input_layernorm", nn.Identity())),
    "training mode": _in_layer("", lambda m: m.train()),
    "training mode within the block": _in_layer("mlp.act_fn", lambda m: m.train()),
    "weights in place": _in_layer("mlp.gate_proj", _in_place),
    "weights of the attention in place": _in_layer("self_attn.o_proj", _in_place),
    "the norm's weight": _in_layer("post_attention_layernorm", _in_place),
    "other weights": _in_layer("mlp.down_proj", _replaced),
    "other weights of the attention": _in_layer("self_attn.v_proj", _replaced),
    "a bias": _in_layer("self_attn.o_proj", _biased),
    "a bias of the block": _in_layer("mlp.down_proj", _biased),
}


@pytest.mark.parametrize("weights", ["int8", "keep"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_tokens_is_seen(change: str, weights: str, together: list[int]) -> None:
    model = deep(weights)
    own = by_own_code(model)
    with torch.no_grad():
        caches = [runner(IDS, use_cache=True).past_key_values for runner in (model, own)]
    before = decode(model, cache=caches[0], steps=3)
    assert torch.equal(before, decode(own, cache=caches[1], steps=3)) and together == [4, 4]
    for runner in (model, own):
        CHANGES[change](runner)
    after = decode(model, cache=caches[0], steps=2)
    assert torch.equal(after, decode(own, cache=caches[1], steps=2))
    assert not torch.equal(after, decode(deep(weights), steps=5)[:, 3:]) or "training" in change


def test_a_stack_ends_before_what_runs_by_itself(together: list[int]) -> None:
    model = deep()
    model.model.layers[2].self_attn.k_proj.register_forward_hook(lambda *_: None)
    assert torch.equal(decode(model, steps=3), decode(by_own_code(model), steps=3)) and together == [2, 2]


def test_a_model_that_changes_hidden_states_between_layers_soon_runs_them_one_by_one(together: list[int]) -> None:
    model = deep()
    real = type(model.model.layers[0]).__call__

    class Scaled(type(model.model.layers[0])):
        def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
            return real(self, x * 1.5, **kwargs)

    for layer in model.model.layers:
        layer.__class__ = Scaled
    own = by_own_code(model)
    assert torch.equal(decode(model, steps=9), decode(own, steps=9)) and torch.equal(decode(model), decode(own))
    assert len(together) <= 3 * 3


def test_a_layer_in_place_of_its_input(together: list[int]) -> None:
    """Written to in place, the same tensor is not the one that was foreseen."""
    model = deep()
    own = by_own_code(model)
    real = type(model.model.layers[0]).__call__

    class Scaled(type(model.model.layers[0])):
        def __call__(self, x: Tensor, **kwargs: Any) -> Tensor:
            return real(self, x.mul_(1.5), **kwargs)

    found = []
    for runner in (model, own):
        runner.model.layers[2].__class__ = Scaled
        with torch.inference_mode():
            cache = runner(IDS, use_cache=True).past_key_values
            found.append([runner(IDS[:, k : k + 1], past_key_values=cache).logits for k in range(3)])
    assert all(map(torch.equal, *found))


def test_layers_that_are_never_called_leave_no_trace() -> None:
    model = deep()
    own = by_own_code(model)
    with torch.no_grad():
        caches = [runner(IDS, use_cache=True).past_key_values for runner in (model, own)]
        wanted = [decode(own, cache=caches[1], steps=1)]
        found = [decode(model, cache=caches[0], steps=1)]
        for runner, cache, out in ((model, caches[0], found), (own, caches[1], wanted)):
            layers, runner.model.config.num_hidden_layers = runner.model.config.num_hidden_layers, 2  # leaves early
            out.append(decode(runner, cache=cache, steps=1))
            runner.model.config.num_hidden_layers = layers
            for held in cache.layers[:2]:
                held.crop(-1)
            assert [held.keys.shape[2] for held in cache.layers] == [10] * 4
            out.append(decode(runner, cache=cache, steps=2))
    assert all(map(torch.equal, found, wanted))


def test_bytes_that_change_unannounced_are_noticed_in_time(together: list[int]) -> None:
    """Kept weights written to through NumPy: no counter rises."""
    model = deep("keep")
    run = accelerated_blocks(model)[1]
    calls = run.current.now().freshness.calls_to_see_all
    decode(model, steps=2)
    model.model.layers[1].mlp.gate_proj.weight.detach().numpy()[:] *= -1
    own = by_own_code(model)
    with torch.no_grad():
        caches = [runner(IDS, use_cache=True).past_key_values for runner in (model, own)]
        for _ in range(calls + 1):
            found, wanted = (r(IDS[:, :1], past_key_values=c).logits for r, c in zip((model, own), caches, strict=True))
    assert run.current.repacked == 1 and len(together) > 2 and torch.isfinite(found).all()
    assert torch.equal(decode(model, steps=2), decode(by_own_code(model), steps=2)) and wanted.shape == found.shape


def test_kept_blocks_review_their_paths_as_ever(together: list[int]) -> None:
    model = deep("keep")
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        for _ in range(150):
            model(IDS[:, :1], past_key_values=cache, use_cache=True)
    for block in lazy.status(model).blocks:
        assert block.calls == 151
    assert len(together) > 20
    assert all(run.following._reviews >= 1 for run in accelerated_blocks(model))


def test_calls_are_counted_and_blocks_look_again(together: list[int]) -> None:
    model = deep()
    decode(model, steps=6)
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        for _ in range(40):
            model(IDS[:, :1], past_key_values=cache, use_cache=True)
    for block in lazy.status(model).blocks:
        assert block.calls == sum(block.paths.values()) == 48 and not block.fallbacks  # two prompts
        assert block.why_by_tokens[2]  # decided meanwhile
    assert len(together) > 20
    for run in accelerated_blocks(model):
        assert int(run.counts[3] + run.counts_of_every[3]) == 48


def test_every_neuron_runs_together_too(together: list[int]) -> None:
    model = deep()
    wanted = decode(model)
    together.clear()
    before = [int(run.counts_of_every[3]) for run in accelerated_blocks(model)]
    with every_neuron(model):
        assert torch.equal(decode(model), wanted) and together == [4] * 5
    after = [int(run.counts_of_every[3]) for run in accelerated_blocks(model)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [7] * 4
    assert torch.equal(decode(model), wanted)


def test_other_batches_and_copies(together: list[int]) -> None:
    model = deep()
    for runner in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        own = by_own_code(runner)
        for ids in (IDS, IDS[:1], IDS.repeat(2, 1), IDS):
            assert torch.equal(decode(runner, ids=ids, steps=3), decode(own, ids=ids, steps=3))
        stacks = {id(forward.stack): forward.stack for forward in forwards(runner)}
        assert len(stacks) == 1 and [f.module for f in next(iter(stacks.values())).layers] == list(runner.model.layers)
    assert len(together) > 12


CHANGES_WITHIN: dict[str, Change] = {
    "weights in place": CHANGES["weights in place"],
    "a hook": CHANGES["a hook on the attention"],
    "another forward": CHANGES["another forward"],
    "values of the cache": lambda model: setattr(model.kept.layers[2], "values", model.kept.layers[2].values * 2),
}


@pytest.mark.parametrize("weights", ["int8", "keep"])
@pytest.mark.parametrize("change", CHANGES_WITHIN)
def test_a_loop_of_ones_own_over_layers_may_change_what_it_likes(change: str, weights: str) -> None:
    """Outside of a model's forward no layer runs ahead of its call."""
    found = []
    model = deep(weights)
    for runner in (model, by_own_code(model)):
        with torch.no_grad():
            runner.kept = runner(IDS, use_cache=True).past_key_values
            decode(runner, cache=runner.kept, steps=3)
            x = runner.model.embed_tokens(IDS[:, :1])
            positions = torch.full((2, 1), 12)
            angles = runner.model.rotary_emb(x, position_ids=positions)
            for layer in runner.model.layers:
                x = layer(x, position_embeddings=angles, past_key_values=runner.kept, use_cache=True)
                if layer is runner.model.layers[0]:
                    CHANGES_WITHIN[change](runner)
            found.append(x)
    assert torch.equal(*found)


def test_a_hook_in_place_of_a_training_hook_is_seen() -> None:
    model = deep()
    up = model.model.layers[1].mlp.up_proj
    hook: Any = lambda *_: None  # noqa: E731
    hook.only_in_training = True
    handle = up.register_forward_hook(hook)
    decode(model, steps=4)
    handle.remove()
    up.register_forward_hook(lambda _, args, y: y * 2)
    assert torch.equal(decode(model, steps=4), decode(by_own_code(model), steps=4))


def test_settings_are_looked_at_however_often_something_else_changes(together: list[int]) -> None:
    model = deep()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        for k in range(130):
            if k == 10:
                for layer in model.model.layers:
                    layer.self_attn.scaling *= 2
            if k % 21 == 20:
                handle = model.model.layers[2].register_forward_hook(lambda *_: None)
            if k % 21 == 0 and k:
                handle.remove()
            model(IDS[:, :1], past_key_values=cache, use_cache=True)
    assert all(layer.forward._other_settings for layer in model.model.layers) and together


def test_two_sizes_of_batches_in_turn_are_all_counted() -> None:
    for weights in ("int8", "keep"):
        model = deep(weights)
        for _ in range(2):
            for ids in (IDS, IDS[:1]):
                decode(model, ids=ids, steps=3)
        with every_neuron(model):
            decode(model, steps=3)
        for block in lazy.status(model).blocks:
            assert block.calls == 20 and block.sparse_calls == 16 and sum(block.paths.values()) == 20


def test_a_layer_by_itself_is_copied_without_the_others() -> None:
    model = deep()
    alone = len(pickle.dumps(model.model.layers[0]))
    assert alone < 2 * len(pickle.dumps(deep().model.layers[:1])) and alone < len(pickle.dumps(model)) / 3


def test_what_is_never_asked_for_keeps_no_cache_alive() -> None:
    import gc
    import weakref

    model = deep()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        decode(model, cache=cache, steps=3)
        model.model.config.num_hidden_layers = 2
        decode(model, cache=cache, steps=1)
    held = weakref.ref(cache.layers[3])
    del cache
    gc.collect()
    assert held() is None


def test_old_weights_are_let_go_while_decoding_goes_on() -> None:
    import gc
    import weakref

    model = deep("keep")
    for n in (1, 2, 3):
        decode(model, ids=IDS[:1].repeat(n, 1), steps=3)
    held = [weakref.ref(run.current.state.packed.sketch.panels) for run in accelerated_blocks(model)]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate_proj.weight.mul_(2)
    decode(model, ids=IDS[:1], steps=3)
    gc.collect()
    assert not any(one() is not None for one in held)


def test_few_sets_of_layers_are_kept_ready() -> None:
    model = deep()
    for n in range(1, 8):
        decode(model, ids=IDS[:1].repeat(n, 1), steps=2)
    stack = forwards(model)[0].stack
    assert [key[1][0] for key in stack._ready] == [4, 5, 6, 7]
    for block in lazy.status(model).blocks:
        assert block.calls == 7 * 3


def test_tensors_of_a_model_that_moved_on_are_let_go() -> None:
    import gc
    import weakref

    model = deep()
    decode(model)
    held = weakref.ref(model.model.layers[1].mlp.down_proj.rows)
    model.model.layers[1].mlp.down_proj.rows = model.model.layers[1].mlp.down_proj.rows.clone()
    gc.collect()
    assert held() is None


def test_threads_have_their_own_tokens() -> None:
    import threading

    model = deep()
    wanted = decode(by_own_code(model))
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(decode(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(one, wanted) for one in found)
