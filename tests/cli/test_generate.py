"""`lazyneuron generate`: streams a continuation, reports what it cost; bad input is a sentence and writes nothing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lazyneuron as lazy
from lazyneuron.core.record import Record
from tests.cli.command import run
from tests.core.kills import in_a_child
from tests.core.resealed import reseal
from tests.generate.models import save, tokenizer
from tests.kernels import needs_kernels

pytestmark = needs_kernels


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("models")
    for name in ("llama", "t5"):
        save(here / name, name)
    return here


def test_it_streams_and_reports(folders: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    record = tmp_path / "record.json"
    status = run(
        monkeypatch, "generate", folders / "llama", "--prompt", "def quick_sort(", "--weights", "int4",
        "--rest", "int8", "--against", "dense", "--max-new-tokens", 20, "--json", record, "--out", tmp_path / "saved",
    )  # fmt: skip
    out, _ = capsys.readouterr()
    assert status == 0
    data = Record.from_json(record.read_text()).data
    shown = "".join("\ufffd" if (ord(c) < 32 and c not in "\n\t") or 126 < ord(c) < 160 else c for c in data["text"])
    assert out.startswith(f"def quick_sort({shown}\n")
    sparse, dense = data["rows"]
    assert sparse["tokens"] == dense["tokens"] and len(sparse["tokens"]) == 20
    assert data["text"] == tokenizer().decode(sparse["tokens"], skip_special_tokens=True)
    assert 0 < sparse["computed"] < 1 == dense["computed"] and sparse["bytes_per_token"] < dense["bytes_per_token"]
    assert data["agreement"] == {"equal": 20, "of": 20, "tie": None}
    assert data["formats"] == {"weights": "int4", "rest": "int8", "group": 32}
    assert "All 20 tokens are those of the dense evaluation." in out and "MiB a token" in out
    again = tmp_path / "again.json"
    assert run(monkeypatch, "generate", tmp_path / "saved", "--prompt", "def quick_sort(", "--max-new-tokens", 20,
               "--json", again) == 0  # fmt: skip
    assert Record.from_json(again.read_text()).data["rows"][0]["tokens"] == sparse["tokens"]


def test_the_perplexity_of_a_text_is_that_of_the_quantised_model(folders, tmp_path, monkeypatch, capsys) -> None:
    text, record = tmp_path / "text.txt", tmp_path / "record.json"
    text.write_text("def add(a, b):\n    return a + b\n" * 9)
    found = {}
    for bits in ("keep", "int4"):
        line = ["--prompt", "a", "--weights", bits, "--rest", bits, "--max-new-tokens", 2, "--text", text]
        assert run(monkeypatch, "generate", folders / "llama", *line, "--json", record) == 0
        model, _ = lazy.generate.load_quantised(folders / "llama", weights=bits, rest=bits)
        ids = tokenizer()(text.read_text(), return_tensors="pt")["input_ids"][0]
        found[bits] = lazy.generate.fit_of(model, ids, length=128).perplexity  # 128: its context
        fit = Record.from_json(record.read_text()).data["fit"]
        assert fit == {
            "perplexity": pytest.approx(found[bits]),
            "tokens": len(ids) - -(-len(ids) // 128),
            "length": 128,
        }
    assert found["keep"] != found["int4"]
    assert "Perplexity of the text: " in capsys.readouterr().out


def test_a_certified_head_computes_the_entries_that_count(folders: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    line = ["--prompt", "def quick_sort(", "--max-new-tokens", 20, "--json", tmp_path / "r.json"]
    certified = ["--head", "certified", "--against", "dense", "--out", tmp_path / "saved"]
    assert run(monkeypatch, "generate", folders / "llama", "--weights", "int4", *line, *certified) == 0
    out, _ = capsys.readouterr()
    data = Record.from_json((tmp_path / "r.json").read_text()).data
    sparse, dense = data["rows"]
    assert data["formats"] == {"weights": "int4", "rest": "keep", "group": 32}
    assert sparse["tokens"] == dense["tokens"] and data["agreement"]["equal"] == 20
    assert 1 <= sparse["candidates"] < 384 / 8 and dense["candidates"] is None
    assert f"{sparse['candidates']:#.3g} of 384" in out
    head = data["head"]
    assert head["entries"] == 384 and head["added_bytes"] >= 384 * 128
    assert head["certified_calls"] >= 20 and head["fallbacks"] == {}
    assert run(monkeypatch, "generate", tmp_path / "saved", *line) == 0  # a head that was saved certified stays so
    again = Record.from_json((tmp_path / "r.json").read_text()).data
    assert again["rows"][0]["tokens"] == sparse["tokens"] and again["rows"][0]["candidates"] == sparse["candidates"]
    capsys.readouterr()
    assert run(monkeypatch, "generate", folders / "llama", *line, "--head", "certified", "--sample") == 0
    drawn = Record.from_json((tmp_path / "r.json").read_text()).data
    assert drawn["rows"][0]["candidates"] is None and "The 50 largest of 384" in next(iter(drawn["head"]["fallbacks"]))
    assert "gave all entries" in capsys.readouterr().out


def test_an_encoder_decoder_and_a_prompt_from_a_file(folders: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "prompt.txt").write_text("\ufeffdef f(x):\n", encoding="utf-8")
    line = ["generate", folders / "t5", "--prompt-file", tmp_path / "prompt.txt", "--max-new-tokens", 5, "--sample",
            "--temperature", 2, "--top-p", 0.9, "--seed", 3, "--json", tmp_path / "r.json"]  # fmt: skip
    assert run(monkeypatch, *line) == 0
    first = Record.from_json((tmp_path / "r.json").read_text())
    assert run(monkeypatch, *line) == 0
    assert (
        Record.from_json((tmp_path / "r.json").read_text()).data["rows"][0]["tokens"] == first.data["rows"][0]["tokens"]
    )
    assert first.seed == 3 and not capsys.readouterr().out.startswith("def f")


def test_what_does_not_fit_behind_the_prompt_is_not_asked_for(folders: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "generate", folders / "llama", "--prompt", "x" * 20, "--max-new-tokens", 500) == 0
    assert "The context ends after" in capsys.readouterr().out


WRONG = {
    "llama --prompt ''": "The prompt is empty",
    "llama": "--prompt TEXT or in --prompt-file",
    "llama --prompt a --prompt-file long.txt": "one of the two",
    "llama --prompt-file long.txt": "the model's context is 128",
    "llama --prompt-file empty.txt": "The prompt is empty",
    "llama --prompt-file missing.txt": "no file missing.txt",
    "llama --prompt-file latin.txt": "not UTF-8: byte 0xe9 at offset 1",
    "llama --prompt-file .": "is a folder",
    "llama --prompt a --text missing.txt": "no file missing.txt",
    "llama --prompt a --text latin.txt": "not UTF-8: byte 0xe9 at offset 1",
    "llama --prompt a --text empty.txt": "has 0 tokens for this model",
    "t5 --prompt a --text long.txt": "is an encoder-decoder",
    "llama --prompt a --weights int3": "got 'int3'",
    "llama --prompt a --rest fp8": "got 'fp8'",
    "llama --prompt a --group 48": "32, 64, 128 weights, got 48",
    "llama --prompt a --group 0": "32, 64, 128 weights, got 0",
    "odd --prompt a --weights int4 --group 64": "groups of 64 do not divide",
    "llama --prompt a --against sparse": "--against is dense",
    "llama --prompt a --head sure": "--head is certified, got 'sure'",
    "llama --prompt a --head certified --rest int8": "got --rest int8; leave it out",
    "saved --prompt a --head certified": "was saved with rest='int8', got 'keep'",
    "llama --prompt a --temperature 2": "are for --sample",
    "llama --prompt a --sample --temperature 0": "a positive number",
    "llama --prompt a --sample --temperature nan": "a positive number",
    "llama --prompt a --sample --top-p 1.5": "a share above 0",
    "llama --prompt a --max-new-tokens 0": "got '0'",
    "llama --prompt a --out llama": "the model's own folder",
    "llama --prompt a --out llama/config.json": "Cannot write",
    "llama --prompt a --json odd": "is a folder; name a file",
    "nowhere --prompt a": "There is no folder 'nowhere'",
    "bare --prompt a": "has no tokenizer",
    "hollow --prompt a": "has no config.json",
    "foreign --prompt a": "the tokenizer is another model's",
    "vision --prompt a": "does not generate text",
    "nan --prompt a": "holds NaN or infinity",
    "norm --prompt a": "model.norm.weight holds NaN or infinity",
    "nan --prompt a --weights keep --rest keep": "self_attn.q_proj.weight holds NaN or infinity",
    "truncated --prompt a": "no whole safetensors file",
    "pickled --prompt a": "only pickled weights",
    "saved --prompt a --weights int4": "was saved with weights='int8', got 'int4'",
    "later --prompt a": "saved in the layout 2",
    "cut --prompt a": "does not hold a saved model",
}


@pytest.fixture(scope="module")
def hostile(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lazyneuron.generate.load import load_quantised

    here = tmp_path_factory.mktemp("hostile")
    for name in ("llama", "bare", "foreign", "vision", "truncated", "pickled"):
        shutil.copytree(folders / "llama", here / name)
    shutil.copytree(folders / "t5", here / "t5")
    save(here / "odd", "llama", intermediate_size=160, hidden_size=96)
    for path in here.glob("bare/tokenizer*"):
        path.unlink()
    config = json.loads((here / "llama/config.json").read_text())
    (here / "foreign/config.json").write_text(json.dumps({**config, "vocab_size": 40}))
    (here / "vision/config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    shard = sorted(here.glob("truncated/*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    for path in here.glob("pickled/model*"):
        path.unlink()
    (here / "pickled/pytorch_model.bin").write_bytes(b"x")
    (here / "hollow").mkdir()
    model = save(here / "norm", "llama")
    model.model.norm.weight.data[3] = float("nan")
    model.save_pretrained(here / "norm", max_shard_size="300KB")
    model = save(here / "nan", "llama")
    model.model.layers[0].self_attn.q_proj.weight.data[0, 0] = float("inf")
    model.save_pretrained(here / "nan", max_shard_size="300KB")
    quantised, _ = load_quantised(here / "llama")
    for name in ("saved", "later", "cut"):
        lazy.save(quantised, here / name)
        tokenizer().save_pretrained(here / name)

    def newer(content: dict) -> dict:
        content["receipts"][0]["config"]["layout"] = 2
        return content

    reseal(here / "later/receipts.json", newer)
    whole = next(here.glob("cut/*.safetensors"))
    whole.write_bytes(whole.read_bytes()[:-100])
    (here / "long.txt").write_text("x = [1, 2]\n" * 100)
    (here / "empty.txt").write_text("")
    (here / "latin.txt").write_bytes(b"a\xe9")
    return here


@pytest.mark.parametrize("arguments", WRONG)
def test_one_sentence_and_nothing_written(hostile: Path, monkeypatch, capsys, arguments: str) -> None:
    monkeypatch.chdir(hostile)
    before = sorted(hostile.rglob("*"))
    assert run(monkeypatch, "generate", *shlex.split(arguments)) == 2
    out, err = capsys.readouterr()
    assert WRONG[arguments] in err and err.count("\n") == 1 and "Traceback" not in err, err
    assert not out and sorted(hostile.rglob("*")) == before


COMMAND = ["--prompt", "a", "--max-new-tokens", "4", "--out", "out"]
SAID = "Interrupted; nothing was left half-written."


def interrupted_at(folder: Path, process: int | subprocess.Popen[str]) -> None:
    """Press Ctrl-C once the process has come to where it waits."""
    for _ in range(600):
        if (folder / "there").exists() or (not isinstance(process, int) and process.poll() is not None):
            break
        time.sleep(0.1)
    os.kill(process if isinstance(process, int) else process.pid, signal.SIGINT)


def wait_there(*_: object, **__: object) -> None:
    Path("there").touch()
    time.sleep(60)


@pytest.mark.parametrize("at", ["lazyneuron.accelerate.quantised.exchange.Layer.make", "lazyneuron.core.sealed.seal"])
def test_ctrl_c_while_loading_or_saving_ends_with_130(folders: Path, tmp_path: Path, monkeypatch, at: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(at, wait_there)

    def command() -> None:
        with open("said", "w", encoding="utf-8") as sys.stderr:
            status = run(monkeypatch, "generate", folders / "llama", *COMMAND)
        Path("status").write_text(str(status))

    child = in_a_child(command)
    interrupted_at(tmp_path, child)
    os.waitpid(child, 0)
    assert (tmp_path / "status").read_text() == "130"
    assert (tmp_path / "said").read_text().strip().endswith(SAID) and not (tmp_path / "out").exists()


def test_ctrl_c_while_generating_ends_the_command_with_130(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import lazyneuron.generate.decoding as d\n"
        "def wait(*_, **__):\n    pathlib.Path('there').touch(); time.sleep(60)\n"
        "d._Watch.put = wait\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "lazyneuron", "generate", str(folders / "llama"), *COMMAND]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    interrupted_at(tmp_path, process)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.strip().endswith(SAID) and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_an_interrupt_on_its_way_through_exec_ends_with_130_too(tmp_path: Path) -> None:
    """As while a library makes code out of text; ``python -m`` would end by the signal."""
    (tmp_path / "through.py").write_text(
        "from lazyneuron.cli.interrupted import end_interrupted\n"
        "try:\n    exec('raise KeyboardInterrupt')\nexcept KeyboardInterrupt:\n    end_interrupted()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "through"]
    ended = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, f"{SAID}\n")
