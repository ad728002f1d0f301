import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lazyneuron.cli.data import load_batches, read_texts
from lazyneuron.cli.model import LoadedModel
from lazyneuron.core.errors import DataError

PLAIN = LoadedModel(name="plain", model=nn.Linear(3, 3))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3, dtype=torch.bfloat16)

    def forward(self, x, ids=None):
        return self.layer(x)


TWO = LoadedModel(name="two", model=Two())


class Words:
    """A tokenizer of words by their length."""

    model_max_length = 6

    def __call__(self, texts, *, padding, truncation, max_length, return_tensors):
        assert padding and truncation and return_tensors == "pt"
        rows = [[len(w) for w in t.split()][:max_length] for t in texts]
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([r + [0] * (longest - len(r)) for r in rows]),
            "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
            "token_type_ids": torch.zeros(len(rows), longest, dtype=torch.long),
        }


class Reader(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        if config:
            self.config = type("Config", (), config)()

    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None, decoder_attention_mask=None):
        return input_ids


def reader(**config):
    return LoadedModel(name="reader", model=Reader(config), tokenizer=Words())


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_of_text(tmp_path):
    path = written(tmp_path, "a.txt", "\ufeffone two\n\n  three  \r\nand é")
    assert read_texts(path) == ["one two", "three", "and é"]


def test_json_lines(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "one\\ntwo", "x": 1}\n\n{"text": "three"}\n')
    assert read_texts(path) == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\n", "is empty"),
        ("a.txt", b"ab\0cd", "is a binary file"),
        ("a.txt", b"abc \xff", "not UTF-8: byte 0xff at offset 4"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', "Line 2 of .* has no text"),
        ("a.jsonl", b'"text"', "Line 1 of .* has no text"),
        ("a.jsonl", b'\n{"text": ', "Line 2 of .* is not JSON"),
    ],
)
def test_bad_text(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_texts(written(tmp_path, name, content))


def test_missing_file_and_folder(tmp_path):
    for name in ("absent.txt", "absent.npy", "absent.npz", "absent.safetensors"):
        with pytest.raises(DataError, match="There is no file"):
            load_batches(tmp_path / name, reader())
    with pytest.raises(DataError, match="is a folder"):
        read_texts(tmp_path)


def test_text_batches_are_padded_cut_and_named(tmp_path):
    path = written(tmp_path, "a.txt", "a bb\nccc\na a a a a a a a a\nb")
    first, second = load_batches(path, reader(), batch_size=3, max_tokens=5)
    assert set(first) == {"input_ids", "attention_mask"}
    assert first["input_ids"].tolist() == [[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [1] * 5]
    assert first["attention_mask"].sum(1).tolist() == [2, 1, 5]
    assert second["input_ids"].tolist() == [[1]]
    assert len(load_batches(path, reader(), batch_size=1, batches=2)) == 2


def test_texts_are_cut_to_what_the_model_takes(tmp_path):
    path = written(tmp_path, "a.txt", "a " * 40)
    assert load_batches(path, reader())[0]["input_ids"].shape == (1, 6)
    assert load_batches(path, reader(max_position_embeddings=6))[0]["input_ids"].shape == (1, 4)


def test_an_encoder_decoder_reads_the_text_on_both_sides(tmp_path):
    (batch,) = load_batches(written(tmp_path, "a.txt", "a bb"), reader(is_encoder_decoder=True))
    assert torch.equal(batch["decoder_input_ids"], batch["input_ids"])
    assert torch.equal(batch["decoder_attention_mask"], batch["attention_mask"])


def test_text_needs_a_tokenizer(tmp_path):
    with pytest.raises(DataError, match="plain has no tokenizer"):
        load_batches(written(tmp_path, "a.txt", "a"), PLAIN)


def test_one_array_is_the_positional_argument(tmp_path):
    array = np.arange(15, dtype=np.float64).reshape(5, 3)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", anything=array)
    save_file({"anything": torch.from_numpy(array)}, tmp_path / "a.safetensors")
    for suffix in ("npy", "npz", "safetensors"):
        batches = load_batches(tmp_path / f"a.{suffix}", PLAIN, batch_size=2)
        assert [len(b) for b in batches] == [2, 2, 1]
        assert batches[0].dtype == torch.float32
        assert torch.equal(torch.cat(batches).double(), torch.from_numpy(array))
        assert len(load_batches(tmp_path / f"a.{suffix}", PLAIN, batch_size=2, batches=1)) == 1


def test_named_arrays_are_keyword_arguments_in_the_models_type(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3)), ids=np.arange(4, dtype=np.int32))
    first, second = load_batches(tmp_path / "a.npz", TWO, batch_size=3)
    assert (first["x"].dtype, first["ids"].dtype) == (torch.bfloat16, torch.int64)
    assert second["ids"].tolist() == [3]
    np.savez(tmp_path / "b.npz", x=np.ones((4, 3)))
    assert set(load_batches(tmp_path / "b.npz", TWO)[0]) == {"x"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 3)), "y": np.ones(4)}, r"does not take the tensors \['y'\].*\['ids', 'x'\]"),
        ({"x": np.ones((4, 3)), "ids": np.ones(3)}, "unlike numbers of examples"),
        ({"x": np.ones((0, 3))}, "is empty"),
        ({"x": np.array(1.0)}, "is empty"),
        ({"x": np.array([{}])}, "not a .npz file of plain numbers"),
        ({"x": np.array(["a"])}, "not a .npz file of plain numbers"),
        ({"x": np.array([1j])}, "complex"),
        ({}, "is empty"),
    ],
)
def test_bad_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_batches(tmp_path / "a.npz", TWO)


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"garbage of no kind", "is not a")])
def test_corrupt_arrays(tmp_path, suffix, content, message):
    with pytest.raises(DataError, match=message):
        load_batches(written(tmp_path, f"a.{suffix}", content), PLAIN)


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"batches": 0}])
def test_sizes_below_one(tmp_path, sizes):
    with pytest.raises(DataError, match="at least one"):
        load_batches(written(tmp_path, "a.txt", "a"), reader(), **sizes)


def test_text_round_trip_through_json(tmp_path):
    texts = ['tab\tquote"', "é\u2028x"]
    path = written(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": t}, ensure_ascii=False) for t in texts))
    assert read_texts(path) == texts


class Looker(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.config = type("Config", (), config)()

    def forward(self, pixel_values):
        return pixel_values


def test_gzipped_json_lines(tmp_path):
    text = "".join(json.dumps({"text": f"{'a ' * (k + 1)}"}) + "\n" for k in range(5))
    path = written(tmp_path, "c4-train.00000-of-01024.json.gz", gzip.compress(text.encode()))
    batches = load_batches(path, reader(), batch_size=2, batches=2)
    assert [len(b["input_ids"]) for b in batches] == [2, 2] and batches[1]["attention_mask"].sum() == 7


def test_a_folder_of_classes_for_a_vision_model(tmp_path):
    for label in range(3):
        for k in range(4):
            path = tmp_path / "val" / f"n{label}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 6), (label * 100,) * 3).save(path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    model = LoadedModel(name=str(tmp_path), model=Looker(image_size=4))
    batches = load_batches(tmp_path / "val", model, batch_size=3, batches=2)
    assert [b["pixel_values"].shape for b in batches] == [(3, 3, 4, 4)] * 2
    seen = torch.cat([b["pixel_values"] for b in batches])[:, 0, 0, 0] * 255
    assert sorted(seen.round().tolist()) == [0, 0, 100, 100, 200, 200]  # all classes, though they lie one by one
    assert len(load_batches(tmp_path / "val", model, batch_size=5)) == 3
    with pytest.raises(DataError, match="takes no images"):
        load_batches(tmp_path / "val", reader(image_size=4))
