"""llama.cpp by llama-cpp-python, on a GGUF file with random weights, written by gguf. No lazyneuron here."""

from __future__ import annotations

import importlib
import os
import time
from importlib import metadata
from typing import Any


class Engine:
    """A Llama-shaped model. ``facts`` has versions, settings and the bytes that a token reads."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        library, gguf = importlib.import_module("llama_cpp"), importlib.import_module("gguf")
        shape, form, threads = wanted["shape"], wanted["format"], wanted["threads"]
        path = os.path.join(wanted["folder"], f"{shape['name']}-{form}.gguf")
        if not os.path.exists(path):
            _write(gguf, path, shape, form)
        settings = {"n_threads": threads, "n_threads_batch": threads, "n_ctx": 512, "logits_all": False}
        self._model = library.Llama(path, verbose=False, **settings)
        head = shape["vocabulary"] * shape["width"] * _BITS[form] / 8
        self.facts = {
            "versions": {name: metadata.version(name) for name in ("llama_cpp_python", "gguf")},
            "settings": {**settings, "build": library.llama_print_system_info().decode()},
            "bytes_a_token": round(os.path.getsize(path) - head),  # the embedding is read one row at a time
        }

    def decode(self, prompt: list[int], tokens: int) -> list[float]:
        """Milliseconds of each token after the prompt and one more; choosing tokens does not count."""
        self._model.reset()
        self._model.eval(prompt)
        times = []
        for number in range(tokens + 1):
            began = time.perf_counter()
            self._model.eval([3 + 37 * number % 200])
            times.append(1e3 * (time.perf_counter() - began))
        return times[1:]

    def prefill(self, prompt: list[int]) -> list[float]:
        """Milliseconds of a whole prompt."""
        self._model.reset()
        began = time.perf_counter()
        self._model.eval(prompt)
        return [1e3 * (time.perf_counter() - began)]


_BITS = {"Q8_0": 8.5, "Q4_0": 4.5}


def _write(gguf: Any, path: str, shape: dict[str, Any], form: str) -> None:
    """A file whose layers repeat the numbers of the first; each tensor has its own place in the file."""
    np = importlib.import_module("numpy")
    kind = gguf.GGMLQuantizationType[form]
    part = f"{path}.part"
    writer = gguf.GGUFWriter(part, "llama")
    width, hidden, vocabulary = shape["width"], shape["hidden"], shape["vocabulary"]
    keys = width // shape["heads"] * shape["kv_heads"]
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // shape["heads"])
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{form}"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{number}>".encode() for number in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types([1] * vocabulary)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    drawn: dict[tuple[int, int], Any] = {}
    generator = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        if (rows, columns) not in drawn:
            numbers = generator.standard_normal((rows, columns), dtype=np.float32) * 0.02
            drawn[rows, columns] = gguf.quants.quantize(numbers, kind)
        writer.add_tensor(name, drawn[rows, columns], raw_dtype=kind)

    matrix("token_embd.weight", vocabulary, width)
    for layer in range(shape["layers"]):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        sizes = {
            "attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width), "attn_output": (width, width),
            "ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden),
        }  # fmt: skip
        for name, (rows, columns) in sizes.items():
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    matrix("output.weight", vocabulary, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)
