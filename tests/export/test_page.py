"""The programs of docs/export.md, compiled and run: Python, C++, OpenVINO's benchmark tool, ONNX Runtime."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import lazyneuron as lazy
from lazyneuron.blocks import Activation
from lazyneuron.export.openvino.extension import installed
from lazyneuron.ops.native import build
from tests.export.openvino import needs_openvino
from tests.house.rooms import ROOT

PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")
IDS = torch.tensor([[101, 2023, 2003, 102]])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page calls `exported`."""
    here: Path = tmp_path_factory.mktemp("page")
    lazy.export(model(), here / "exported")
    return here


def model() -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160}
    return BertModel(BertConfig(vocab_size=3000, hidden_act="relu", **sizes), add_pooling_layer=False).eval()


def program(kind: str, mark: str) -> str:
    (found,) = [code for code in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if mark in code]
    return found


def check(output: str) -> None:
    with torch.no_grad():
        y = model()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state
    assert output.startswith("sum ")
    assert abs(float(output.split()[1]) - float(y.double().sum())) < 1e-4 * float(y.abs().sum())


@needs_openvino
def test_the_python_program(place: Path) -> None:
    code = program("python", "compile_model")
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    check(done.stdout)


@needs_openvino
def test_the_cpp_program(place: Path) -> None:
    (place / "program.cpp").write_text(program("cpp", "compile_model"))
    found = installed()
    libraries = found.library.parent
    subprocess.run(
        [*build.find_compiler(), "-std=c++17", "program.cpp", "-o", "program", "-isystem", str(found.include),
         f"-L{libraries}", f"-l:{found.library.name}", f"-Wl,-rpath,{libraries}", f"-Wl,-rpath-link,{libraries}"],
        cwd=place, check=True,
    )  # fmt: skip
    check(subprocess.run(["./program"], cwd=place, capture_output=True, text=True, check=True).stdout)


@needs_openvino
def test_the_benchmark_tool(place: Path) -> None:
    (line,) = re.findall(r"^\$ benchmark_app (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    tool = "import sys; from openvino.tools.benchmark.main import main; sys.exit(main())"
    command = [sys.executable, "-c", tool, *shlex.split(line), "-niter", "3"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert "Throughput" in done.stdout


@pytest.mark.parametrize("kind", ["relu", "thresholded_gelu", "offset_gelu", "squared_relu"])
def test_a_sparsified_model_runs_in_onnx_runtime(kind: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(32, 96), nn.GELU(), nn.Linear(96, 32), nn.LayerNorm(32)).eval()
    parameters = {"thresholded_gelu": (0.1,), "offset_gelu": (-0.2, -0.05)}.get(kind, ())
    lazy.sparsify_(made, lazy.Relufy(activation=Activation(kind, parameters)))
    x = torch.randn(6, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(made, (x,), str(tmp_path / "model.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    torch.testing.assert_close(got, made(x), rtol=1e-5, atol=1e-5)
