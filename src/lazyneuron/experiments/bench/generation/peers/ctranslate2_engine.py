"""CTranslate2 with int8 weights, on an OPT-shaped model with random weights. No lazyneuron here."""

from __future__ import annotations

import importlib
import itertools
import os
import time
from importlib import metadata
from typing import Any

_POSITIONS = 512


class Engine:
    """An OPT-shaped model. ``facts`` has versions, settings and the bytes that a token reads."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        library = importlib.import_module("ctranslate2")
        shape = wanted["shape"]
        folder = os.path.join(wanted["folder"], f"{shape['name']}-{wanted['format']}")
        if not os.path.exists(folder):
            _write(folder, shape, wanted["format"])
        settings = {"compute_type": "int8", "inter_threads": 1, "intra_threads": wanted["threads"]}
        self._model = library.Generator(folder, device="cpu", **settings)
        self._read = [f"<{number}>" for number in range(shape["vocabulary"])]
        rows = shape["vocabulary"] * shape["width"]
        size = os.path.getsize(os.path.join(folder, "model.bin"))
        self.facts = {
            "versions": {"ctranslate2": metadata.version("ctranslate2")},
            "settings": settings,
            # of the embedding and of the positions in float32, one row is read
            "bytes_a_token": size - rows - 4 * _POSITIONS * shape["width"],
        }

    def decode(self, prompt: list[int], tokens: int) -> list[float]:
        """Milliseconds of each token after the prompt and one more."""
        seen: list[float] = []

        def step(_: Any) -> bool:
            seen.append(time.perf_counter())
            return False

        self._model.generate_batch(
            [[self._read[token] for token in prompt]], beam_size=1, sampling_topk=1, callback=step,
            min_length=tokens + 2, max_length=tokens + 2, include_prompt_in_result=False,
        )  # fmt: skip
        return [1e3 * (after - before) for before, after in itertools.pairwise(seen[1:])][:tokens]

    def prefill(self, prompt: list[int]) -> list[float]:
        """Milliseconds of a whole prompt and its first token."""
        words = [[self._read[token] for token in prompt]]
        began = time.perf_counter()
        self._model.generate_batch(
            words, beam_size=1, sampling_topk=1, min_length=1, max_length=1, include_prompt_in_result=False
        )
        return [1e3 * (time.perf_counter() - began)]


def _write(folder: str, shape: dict[str, Any], form: str) -> None:
    np, specs = importlib.import_module("numpy"), importlib.import_module("ctranslate2.specs")
    common = importlib.import_module("ctranslate2.specs.common_spec")
    spec = specs.TransformerDecoderModelSpec.from_config(
        shape["layers"], shape["heads"], pre_norm=True, activation=common.Activation.RELU
    )
    width, hidden, vocabulary = shape["width"], shape["hidden"], shape["vocabulary"]
    generator, drawn, turn = np.random.default_rng(0), {}, itertools.count()

    def numbers(rows: int, columns: int) -> Any:
        if (rows, columns) not in drawn:
            drawn[rows, columns] = generator.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
        return np.roll(drawn[rows, columns], next(turn))  # equal weights would be stored, and read, once

    def linear(part: Any, rows: int, columns: int) -> None:
        part.weight, part.bias = numbers(rows, columns), np.zeros(rows, np.float32)

    def norm(part: Any) -> None:
        part.gamma, part.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = numbers(vocabulary, width)
    decoder.position_encodings.encodings = numbers(_POSITIONS, width)
    norm(decoder.layer_norm)
    decoder.projection.weight = numbers(vocabulary, width)
    for layer in decoder.layer:
        norm(layer.self_attention.layer_norm)
        linear(layer.self_attention.linear[0], 3 * width, width)
        linear(layer.self_attention.linear[1], width, width)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, hidden, width)
        linear(layer.ffn.linear_1, width, hidden)
    spec.register_vocabulary([f"<{number}>" for number in range(vocabulary)])
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<1>", "<2>", "<0>"
    spec.validate()
    spec.optimize(quantization=form)
    part = f"{folder}.part"
    os.makedirs(part, exist_ok=True)
    spec.save(part)
    os.replace(part, folder)
