"""Hugging Face's generate() on accelerated models, in all its forms: the tokens are those of every neuron."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.accelerate.quantised.execution import accelerated_blocks, every_neuron
from tests.accelerate.generation import GREEDY, greedy_agreement, llama, prompts, t5
from tests.kernels import needs_kernels

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore")]  # other libraries' own
FORMATS = {"int8": ("int8", "int8"), "int4": ("int4", "int4"), "keep": ("keep", "int8"), "mixed": ("int4", "keep")}
STEPS = 24
FORMS = {
    "greedy": {},
    "beams": {"num_beams": 4},
    "beams, several returned": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=FORMATS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    weights, rest = FORMATS[request.param]
    made = llama()
    lazy.accelerate_(made, [prompts(8, 24)], weights=weights, rest=rest, impl="native")
    return made


def written(model: nn.Module, ids: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """What is written sparsely, and by every neuron; both with the same seed."""
    options = {**GREEDY, "max_new_tokens": STEPS, **options}
    with torch.no_grad():
        torch.manual_seed(11)
        sparse = model.generate(ids, **options)
        torch.manual_seed(11)
        with every_neuron(model):
            return sparse, model.generate(ids, **options)


def ran_sparsely(model: nn.Module) -> bool:
    return all(block.sparse_calls > 0 and 0 < block.fired < 0.25 for block in lazy.status(model).blocks)


@pytest.mark.parametrize("sequences", [1, 2, 4, 8])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_writes_the_tokens_of_every_neuron(model: nn.Module, form: str, sequences: int) -> None:
    sparse, dense = written(model, prompts(sequences, 7), **FORMS[form])
    assert torch.equal(sparse, dense) and sparse.shape[1] == 7 + STEPS
    assert ran_sparsely(model) and len(sparse[:, 7:].unique()) > 3


@pytest.mark.parametrize("verified", [2, 4, 8])
def test_assisted_decoding_writes_the_tokens_of_every_neuron_and_of_no_assistant(
    model: nn.Module, verified: int
) -> None:
    assistant = copy.deepcopy(model)  # nearly the same, so that some of what it offers is taken
    with torch.no_grad():
        assistant.model.norm.weight.mul_(1 + 0.3 * torch.randn(64, generator=torch.Generator().manual_seed(0)))
    assistant.generation_config.num_assistant_tokens = verified
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0
    seen: list[int] = []
    gate = model.model.layers[0].input_layernorm.register_forward_hook(lambda _, x, y: seen.append(x[0].shape[1]))
    sparse, dense = written(model, prompts(1, 7), assistant_model=assistant)
    gate.remove()
    assert torch.equal(sparse, dense)
    alone = written(model, prompts(1, 7))[0]
    assert torch.equal(sparse[:, : alone.shape[1]], alone[:, : sparse.shape[1]])
    assert max(seen[1:]) > 1 and ran_sparsely(model)  # several tokens were verified together


def test_left_padding_changes_no_token(model: nn.Module) -> None:
    ids, mask = prompts(4, 9), torch.ones(4, 9, dtype=torch.long)
    for k in range(1, 4):
        ids[k, : 2 * k], mask[k, : 2 * k] = 0, 0
    sparse, dense = written(model, ids, attention_mask=mask)
    assert torch.equal(sparse, dense)
    for k in range(4):
        alone = written(model, ids[k : k + 1, 2 * k :])[0]
        assert torch.equal(alone[0, 9 - 2 * k :], sparse[k, 9:])


def test_a_seed_decides_what_is_sampled(model: nn.Module) -> None:
    options = {**GREEDY, "do_sample": True, "max_new_tokens": STEPS}
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.generate(prompts(2, 5), **options))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("form", ["greedy", "beams", "sampling", "penalties"])
@pytest.mark.parametrize("name", FORMATS)
def test_an_encoder_with_a_decoder(name: str, form: str) -> None:
    made = t5()
    lazy.accelerate_(made, weights=FORMATS[name][0], rest=FORMATS[name][1], impl="native")
    seen: set[int] = set()
    for sequences in (1, 8):
        sparse, dense = written(made, prompts(sequences, 9), **FORMS[form])
        assert torch.equal(sparse, dense)
        seen |= set(sparse.flatten().tolist())
    assert len(seen) > 5
    assert ran_sparsely(made) and len(lazy.status(made).blocks) == 4


def test_a_neuron_that_is_skipped_is_found() -> None:
    model = llama()
    lazy.accelerate_(model, weights="int8", rest="int8")
    run = accelerated_blocks(model)[0].run

    def faulty(x: Tensor, every: bool | None = None) -> Tensor:
        execution = accelerated_blocks(model)[0]
        y = run(x, every)
        return y if execution.every else y + 0.05 * y.roll(1, -1)

    accelerated_blocks(model)[0].run = faulty
    assert not greedy_agreement(model, prompts(8, 6), 40).whole


@pytest.mark.parametrize("name", FORMATS)
def test_ten_thousand_greedy_tokens_of_fifty_sequences(name: str) -> None:
    model = llama()
    lazy.accelerate_(model, [prompts(8, 24)], weights=FORMATS[name][0], rest=FORMATS[name][1], impl="native")
    found = greedy_agreement(model, prompts(50, 6), 204)
    assert found.whole and found.tokens >= 10_000 - 204 * found.ties and found.ties <= 2
    # quantised rows are summed in one order, so there is nothing to tie
    assert found.ties == 0 or name == "keep"


@pytest.mark.slow
def test_ten_thousand_greedy_tokens_one_after_the_other() -> None:
    model = llama()
    lazy.accelerate_(model, [prompts(8, 24)], weights="int4", rest="int8")
    found = [greedy_agreement(model, prompts(1, 6, seed=start), 400) for start in range(25)]
    assert all(f.whole for f in found) and sum(f.same for f in found) == 10_000
