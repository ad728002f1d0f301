"""`lazy.export`: whole models through OpenVINO against torch, the folder, and bad input."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.core.errors import ConfigError, DataError, ImplUnavailable, NoBlocksError
from lazyneuron.export.openvino import extension as building
from lazyneuron.export.openvino.convert import converted, core_with
from lazyneuron.export.openvino.folder import FILES, feed_of
from lazyneuron.export.openvino.quantise import quantised
from lazyneuron.ops.native import build
from tests.cli.command import run as command
from tests.export.openvino import EXACT, library, needs_openvino


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 200), activation or nn.ReLU(), nn.Linear(200, 48), nn.LayerNorm(48))
    return model.eval().requires_grad_(False)


def bert() -> tuple[nn.Module, list[Any]]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160}
    model = BertModel(BertConfig(vocab_size=99, hidden_act="relu", **sizes), add_pooling_layer=False).eval()
    return model, [_text(3, 12), _text(2, 7), _text(1, 1)]


def t5() -> tuple[nn.Module, list[Any]]:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(vocab_size=99, d_model=64, d_ff=160, d_kv=16, num_layers=2, num_heads=4)).eval()
    return model, [_text(3, 12), _text(2, 40)]


def gated() -> tuple[nn.Module, list[Any]]:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaModel(LlamaConfig(vocab_size=99, hidden_act="relu", **sizes)).eval()
    return model, [_text(3, 12), _text(2, 9)]


def detr() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 160, activation="relu", batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    return model, [torch.randn(1, 30, 64), torch.randn(2, 11, 64)]


def _text(sequences: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 99, (sequences, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    mask[-1, (tokens + 1) // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _output(model: nn.Module, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        y = model(batch) if isinstance(batch, torch.Tensor) else model(**batch)
    return y if isinstance(y, torch.Tensor) else y.last_hidden_state


def read(folder: Path) -> Any:
    """The exported model, from its files alone, by a core that has never seen it."""
    import openvino

    core = openvino.Core()
    core.add_extension(folder / "lazyneuron.so")
    return core.compile_model(folder / "model.xml", "CPU", EXACT)


def feed(batch: Any) -> Any:
    return [batch.numpy()] if isinstance(batch, torch.Tensor) else {k: v.numpy() for k, v in batch.items()}


@needs_openvino
@pytest.mark.parametrize("make", [bert, t5, gated, detr])
def test_a_model_in_a_folder_gives_torchs_outputs(
    make: Callable[[], tuple[nn.Module, list[Any]]], tmp_path: Path
) -> None:
    model, batches = make()
    before = copy.deepcopy(model.state_dict())
    exported = lazy.export(model, tmp_path / "out", batches=batches, every=True)
    assert [change.action for change in exported.changes] == ["exported"] * 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert (tmp_path / "out/model.xml").read_text().count('type="SparseMLP"') == 2
    compiled = read(tmp_path / "out")
    for batch in [*batches, batches[0]]:
        wanted = _output(model, batch)
        got = torch.from_numpy(compiled(feed(batch))[0])
        torch.testing.assert_close(got, wanted, rtol=2e-4, atol=2e-4)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert exported.output_error["rms"] < 1e-4


@needs_openvino
def test_without_batches_a_text_model_offers_its_own_example(tmp_path: Path) -> None:
    model, batches = bert()
    lazy.export(model, tmp_path / "out")
    got = read(tmp_path / "out")(feed(batches[1]))[0]
    torch.testing.assert_close(torch.from_numpy(got), _output(model, batches[1]), rtol=2e-4, atol=2e-4)


@needs_openvino
def test_int8_of_blocks_and_of_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    model = nn.Sequential(nn.Linear(48, 48), *mlp()).eval()
    batches = [torch.randn(7, 48), torch.randn(4, 48)]
    exported = lazy.export(model, tmp_path / "out", batches=batches, weights="int8", rest="int8", every=True)
    text = (tmp_path / "out/model.xml").read_text()
    assert text.count('type="SparseMLP"') == 1 and 'weights="int8"' in text and 'type="FakeQuantize"' in text
    own = converted(model, [], batches[0], library())
    own = quantised(own, [feed_of(batch, own) for batch in batches])
    compiled = core_with(library()).compile_model(own, "CPU", EXACT)
    wanted = _output(model, batches[0])

    def error(got: Any) -> float:
        return float((torch.from_numpy(got) - wanted).norm() / wanted.norm())

    # what two batches make of the first layer is coarse, with and without our operator
    ours, engines = error(read(tmp_path / "out")(feed(batches[0]))[0]), error(compiled(feed(batches[0]))[0])
    assert 1e-4 < ours < 1.2 * engines and exported.output_error["rms"] > 1e-4


@needs_openvino
def test_each_block_is_timed_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lazyneuron.export.openvino import folder

    times = iter([(1.0, 2.0), (2.0, 1.0)])
    seen = []
    real = folder.times_us
    monkeypatch.setattr(folder, "times_us", lambda *a, **k: (seen.append(real(*a, **k)), next(times))[1])
    model, batches = bert()
    exported = lazy.export(model, tmp_path / "out", batches=batches)
    assert [change.action for change in exported.changes] == ["exported", "dense"]
    assert (tmp_path / "out/model.xml").read_text().count('type="SparseMLP"') == 1
    assert len(seen) == 2 and all(t > 0 for pair in seen for t in pair)


@needs_openvino
def test_an_earlier_export_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    x = [torch.randn(5, 48)]
    lazy.export(mlp(), tmp_path / "out", batches=x, every=True)
    other = mlp()
    other[2].bias.data += 1.0
    lazy.export(other, tmp_path / "out", batches=x, every=True)
    got = torch.from_numpy(read(tmp_path / "out")([x[0].numpy()])[0])
    torch.testing.assert_close(got, other(x[0]), rtol=2e-4, atol=2e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        lazy.export(mlp(), tmp_path / "out", batches=x)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


@needs_openvino
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def interrupted(*_args: Any, **_kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, "save_model", interrupted)
    model = mlp()
    with pytest.raises(KeyboardInterrupt):
        lazy.export(model, tmp_path / "deep/out", batches=[torch.randn(5, 48)], every=True)
    assert list(tmp_path.iterdir()) == [] and not any("forward" in m.__dict__ for m in model.modules())


@needs_openvino
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "made.py").write_text("from tests.export.test_export import mlp\n")
    import numpy as np

    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((64, 48)).astype("float32"))
    status = command(monkeypatch, "export", "made:mlp", "--to", "openvino", "--out", tmp_path / "out", "--data",
                     tmp_path / "x.npy", "--every", "--json", tmp_path / "r.json")  # fmt: skip
    out, _ = capsys.readouterr()
    assert status == 0 and "model.xml" in out and (tmp_path / "r.json").is_file()
    assert "exported" in out and (tmp_path / "out/model.bin").is_file()


@needs_openvino
@pytest.mark.parametrize("level, openvino, sentence", [
    ("a later level", None, "processors with a later level, which this one has not; export the model again"),
    ("portable", "libopenvino.so.1", r"exported beside libopenvino.so.1, and libopenvino.so.\d+ runs here"),
])  # fmt: skip
def test_a_version_or_a_processor_that_does_not_fit_is_refused_in_a_sentence(
    level: str, openvino: str | None, sentence: str, tmp_path: Path
) -> None:
    from openvino import Core

    macros = building.fits(openvino or building.installed().library.name, level)
    source = build.sources() / "openvino/loader.cpp"
    subprocess.run(
        [*build.find_compiler(), "-std=c++20", "-shared", "-fPIC", *macros, str(source), "-o", f"{tmp_path}/l.so"],
        check=True,
    )
    with pytest.raises(RuntimeError, match=sentence):
        Core().add_extension(tmp_path / "l.so")


@needs_openvino
def test_an_operator_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    from openvino import Core

    (tmp_path / "lazyneuron.so").write_bytes(library().read_bytes())
    with pytest.raises(RuntimeError, match=r"does not load .*; export the model again"):
        Core().add_extension(tmp_path / "lazyneuron.so")


@needs_openvino
def test_the_operator_needs_no_torch(tmp_path: Path) -> None:
    x = torch.randn(5, 48)
    model = mlp()
    lazy.export(model, tmp_path / "out", batches=[x], every=True)
    x.numpy().tofile(tmp_path / "x")
    program = (
        "import sys, numpy, openvino\ncore = openvino.Core()\n"
        f"core.add_extension({str(tmp_path / 'out/lazyneuron.so')!r})\n"
        f"x = numpy.fromfile({str(tmp_path / 'x')!r}, dtype='float32').reshape(5, 48)\n"
        f"compiled = core.compile_model({str(tmp_path / 'out/model.xml')!r}, 'CPU', {EXACT!r})\n"
        "y = compiled([x])[0]\n"
        f"y.tofile({str(tmp_path / 'y')!r})\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    y = torch.from_file(str(tmp_path / "y"), size=5 * 48).reshape(5, 48)
    torch.testing.assert_close(y, model(x), rtol=2e-4, atol=2e-4)


X = [torch.zeros(2, 48)]
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "engine": ({"to": "tvm"}, ConfigError, "to is one of openvino"),
    "weights": ({"weights": "int4"}, ConfigError, "weights is one of keep, bf16, int8"),
    "rest": ({"rest": "int4"}, ConfigError, "rest is one of keep, int8"),
    "half precision": ({"model": mlp().bfloat16()}, ConfigError, r"holds bfloat16 weights; export model.float\(\)"),
    "uncalibrated": ({"rest": "int8", "batches": None}, DataError, "calibrated on real inputs"),
    "no batches": ({"batches": []}, DataError, "There are no batches"),
    "one batch": ({"batches": X[0]}, DataError, "wrap it in a list"),
    "nothing to trace": ({"batches": None}, DataError, "offers no example input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_sentences(name: str, tmp_path: Path) -> None:
    options, error, sentence = REFUSED[name]
    options = dict(options)
    with pytest.raises(error, match=sentence):
        lazy.export(options.pop("model", None) or mlp(), tmp_path / "out", **{"batches": X, **options})
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_a_model_without_sparse_blocks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoBlocksError, match="zero nowhere; sparsify it first"):
        lazy.export(mlp(nn.GELU()), tmp_path / "out", batches=X)
    assert list(tmp_path.iterdir()) == []


def test_without_openvino_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImplUnavailable, match=r"pip install 'lazyneuron\[peers\]'"):
        lazy.export(mlp(), tmp_path / "out", batches=X)


@needs_openvino
def test_other_shapes_than_the_traced_ones(tmp_path: Path) -> None:
    compiled = core_with(library()).compile_model(
        lazy_model := _exported(mlp(), tmp_path), "CPU", EXACT
    )  # the core of the exporter knows the operator too
    assert lazy_model.get_ops()
    for shape in [(1, 48), (7, 48), (300, 48)]:
        x = torch.randn(*shape)
        torch.testing.assert_close(torch.from_numpy(compiled([x.numpy()])[0]), mlp()(x), rtol=2e-4, atol=2e-4)


def _exported(model: nn.Module, folder: Path) -> Any:
    lazy.export(model, folder / "out", batches=[torch.randn(5, 48)], every=True)
    return core_with(library()).read_model(folder / "out/model.xml")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
