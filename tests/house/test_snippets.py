"""Every snippet of the documentation runs, page by page and in order; commands are parsed, and run where quick."""

import ast
import importlib.util
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.main import get_command

from lazyneuron.accelerate.machine import costs
from lazyneuron.cli.main import app
from tests.accelerate.conftest import made_up
from tests.cli.command import run
from tests.export.openvino import HERE as OPENVINO
from tests.generate.models import save as save_language_model
from tests.house.rooms import ROOT
from tests.kernels import NATIVE

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {path.name: path for path in FILES}
NOT_RUN = re.compile(r"# not run: \w+")  # the visible mark of a snippet that needs what a test has not got
# pages that speak of any `model` and `batches`
ACTIVATIONS = {"README.md": nn.GELU(), "index.md": nn.ReLU(), "measure.md": nn.ReLU()}
_LONG = ("demo", "bench", "sweep", "reproduce peng", "reproduce tiny-lm", "doctor --build")  # minutes
LONG = tuple(f"lazyneuron {line}" for line in _LONG)


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch):
    """What this machine costs is measured by the tests of the cost model."""
    monkeypatch.setattr(costs, "are_known", lambda dtype: True)
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))


def fenced(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGES[page].read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    """The lines after `$ `, continued ones joined, without comments."""
    text = "\n".join(fenced(page, "console")).replace("\\\n", " ")
    return [shlex.join(shlex.split(line[2:], comments=True)) for line in text.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "python")])
def test_python_snippets_run_in_order(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {}
    if page in ACTIVATIONS:
        model = nn.Sequential(nn.Linear(16, 64), ACTIVATIONS[page], nn.Linear(64, 16)).eval()
        names = {"model": model, "batches": [torch.randn(300, 16)]}
    for number, code in enumerate(fenced(page, "python")):
        program = compile(code, f"{page}, snippet {number + 1}", "exec")
        if NOT_RUN.match(code) is None:
            exec(program, names)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_that_are_not_run_import_what_exists(page):
    for code in fenced(page, "python"):
        if NOT_RUN.match(code):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lazyneuron"):
                    spec = importlib.util.find_spec(str(node.module))  # importing some would take seconds
                    assert spec is not None and spec.origin is not None
                    source = Path(spec.origin).read_text(encoding="utf-8")
                    assert all(re.search(rf"\b{alias.name}\b", source) for alias in node.names)


@pytest.mark.parametrize("page", PAGES)
def test_code_is_called_code(page):
    for text in fenced(page, "text"):
        assert not re.search(r"^(from \w+|import \w+|lazy\.\w+\()", text, re.MULTILINE)


def parse(arguments):
    """What the command's parser makes of arguments, without running anything."""
    group = get_command(app)
    with group.make_context("lazyneuron", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        command.make_context(name, rest, parent=context).close()


def known_commands():
    lines = [line for page in PAGES for line in commands(page)]
    lines += re.findall(r"^## `(lazyneuron [^`]+)`", PAGES["cli.md"].read_text(encoding="utf-8"), re.MULTILINE)
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("line", known_commands())
def test_console_snippets_are_commands(line):
    words = [word for word in shlex.split(line) if word != "&&"]
    if "lazyneuron" in words[:1] or words[0] == "torchrun":
        arguments = words[words.index("lazyneuron") + 1 :]
        if "COMMAND" not in arguments and arguments != ["--help"]:
            parse([a.rstrip(".") if a.endswith("...") else a for a in arguments])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    elif words[0].startswith("./"):
        assert os.access(ROOT / words[0], os.X_OK)
    else:
        assert words[0] in ("ruff", "mypy", "pytest", "mkdocs", "pip", "benchmark_app")


def test_the_parser_refuses_a_planted_fault():
    for wrong in ("measure model", "measure model --data x --batchs 3", "measured model --data x", "sweep digits"):
        with pytest.raises(Exception, match=r"Missing|No such"):
            parse(wrong.split())


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """The files that the pages' commands name."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
    small = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    for folder in ("my-model", "path/to/model"):
        os.makedirs(folder)
        transformers.BertModel(transformers.BertConfig(**small, intermediate_size=32)).save_pretrained(folder)
        with open(f"{folder}/vocab.txt", "w", encoding="utf-8") as file:
            file.write("\n".join(words))
        transformers.BertTokenizer(f"{folder}/vocab.txt").save_pretrained(folder)
    save_language_model(Path("language-model"), "llama")
    with open("lines.txt", "w", encoding="utf-8") as file:
        file.write("one two three\ntwo one\n" * 8)
    table = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    for name, header in (("train.csv", "size,age,price"), ("test.csv", "size,age,price"), ("new.csv", "size,age")):
        np.savetxt(name, table[:, : len(header.split(","))], delimiter=",", header=header, comments="")


@pytest.mark.filterwarnings("ignore")  # other libraries' own
@pytest.mark.parametrize("page", [page for page in PAGES if any(c.startswith("lazyneuron ") for c in commands(page))])
def test_quick_commands_run(page, inputs, monkeypatch, capsys):
    for line in commands(page):
        if line.startswith("lazyneuron ") and not line.startswith(LONG) and "COMMAND" not in line:
            if line.startswith("lazyneuron generate") and not NATIVE:
                continue
            if line.startswith("lazyneuron export") and not OPENVINO:
                continue
            status = run(monkeypatch, *shlex.split(line)[1:])
            assert status == 0, f"{line}: {capsys.readouterr().err}"
