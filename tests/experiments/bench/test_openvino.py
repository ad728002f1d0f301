"""The benchmark of exported models: what it times is right, has the density it names, and is rendered."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import LazyNeuronError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench import openvino, openvino_cases
from lazyneuron.experiments.experiment import Request
from tests.export.openvino import needs_openvino


def tiny() -> nn.Module:
    layer = nn.TransformerEncoderLayer(256, 4, 160, activation="relu", batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


CASE = openvino_cases.Case(name="tiny", build=tiny, batch=openvino_cases._pixels, sizes=((1, 9), (2, 5)), density=0.1)


@needs_openvino
def test_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "CASES", (CASE,))
    monkeypatch.setattr(openvino, "FORMATS", {"float32": ("keep", "f32"), "bfloat16": ("bf16", "bf16")})
    record = openvino.run(Request(quick=True))
    rows = record.data["rows"]
    assert [(row["format"], row["sequences x tokens"]) for row in rows] == [
        ("float32", "1 x 9"), ("float32", "2 x 5"), ("bfloat16", "1 x 9"), ("bfloat16", "2 x 5")
    ]  # fmt: skip
    for row in rows:
        assert row["error_ours"] < (1e-5 if row["format"] == "float32" else 0.02)
        assert min(row["openvino_ms"], row["ours_ms"], row["ceiling_ms"]) > 0
    text = openvino.EXPERIMENT.sections["docs/export.md"](record)
    assert "| tiny |" in text and "| 1 x 9 | float32 |" in text


def test_biases_give_every_block_its_density() -> None:
    torch.manual_seed(0)
    model, x = tiny(), openvino_cases._pixels(8, 48)
    openvino_cases.with_density(model, [x], 0.1)
    for block in find_blocks(model, x):
        seen: list[torch.Tensor] = []
        handle = block.up.module.register_forward_hook(lambda _m, _i, z, seen=seen: seen.append(z))
        with torch.no_grad():
            model(x)
        handle.remove()
        assert abs(float((seen[0] > 0).double().mean()) - 0.1) < 0.01


@needs_openvino
def test_converted_models_are_kept_and_what_was_measured_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(openvino, "CASES", (CASE,))
    monkeypatch.setattr(openvino, "FORMATS", {"float32": ("keep", "f32"), "bfloat16": ("bf16", "bf16")})
    openvino.convert(tmp_path / "models", quick=True)
    monkeypatch.setattr(openvino, "converted", lambda *_: pytest.fail("it converted what the folder has"))
    kept: list[Record] = []
    asked = Request(quick=True, folder=tmp_path / "models", keep=kept.append)
    whole = openvino.run(asked)
    assert [len(record.data["rows"]) for record in kept] == [2, 4]

    timed: list[str] = []
    monkeypatch.setattr(
        openvino, "_row", lambda ready, size, **_: {**whole.data["rows"][2], "format": timed.append(ready.form)}
    )
    first, commit = kept[0], whole.environment.commit
    begun = Record.from_json(first.to_json().replace(commit, 40 * "b"))
    again = openvino.run(dataclasses.replace(asked, begun=begun))
    assert timed == ["bfloat16"] * 2 and again.data["rows"][:2] == whole.data["rows"][:2]
    assert (
        list(again.data["commits"].values()) == [40 * "b", commit]
        and list(whole.data["commits"].values()) == [commit] * 2
    )
    assert f"At commit {12 * 'b'}: {next(iter(again.data['commits']))}." in openvino._section(again)


@needs_openvino
def test_a_wrong_output_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "CASES", (dataclasses.replace(CASE, sizes=((1, 9),) * 2),))
    monkeypatch.setattr(openvino, "FORMATS", {"float32": ("keep", "f32")})
    real = openvino.packed_operator

    def spoiled(block, weights):
        packed = real(block, weights)
        return dataclasses.replace(packed, attributes={**packed.attributes, "activation": "squared_relu"})

    monkeypatch.setattr(openvino, "packed_operator", spoiled)
    with pytest.raises(LazyNeuronError, match="nothing is timed"):
        openvino.run(Request(quick=True))
