import json

import pytest
import torch

from lazyneuron.accelerate.machine import costs
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench import route
from lazyneuron.experiments.bench.blocks import measuring
from tests.accelerate.conftest import made_up
from tests.cli import command

TINY = ["--shape", "32x128", "--threads", 1]


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(costs, "cost_model_for", lambda dtype, **_: made_up(dtype))


def run(monkeypatch, *arguments):
    """The exit status of ``lazyneuron bench`` with these arguments, 0 when it returns."""
    return command.run(monkeypatch, "bench", *arguments)


def test_rows_are_printed_and_written(monkeypatch, capsys, tmp_path):
    path = tmp_path / "new" / "r.json"
    options = ["--tokens", 1, "--tokens", 3, "--dtype", "bfloat16", "--density", 0.2, "--against", "pruned"]
    assert run(monkeypatch, *TINY, *options, "--json", path) == 0
    out = capsys.readouterr().out
    assert "32 x 128, bfloat16, 1 thread" in out and "vs dense" in out and "2 of 2 rows" in out
    record = Record.from_json(path.read_text())
    assert record.kind == "benchmark/accelerate" and record.environment.threads == 1
    assert [(r["tokens"], r["density"], r["dtype"]) for r in record.data["rows"]] == [
        (1, 0.2, "bfloat16"),
        (3, 0.2, "bfloat16"),
    ]
    assert "pruned" in {c["name"] for c in record.data["rows"][0]["candidates"]}


def test_methods_are_shown_beside_their_quality(monkeypatch, capsys):
    assert (
        run(
            monkeypatch,
            *TINY,
            "--tokens",
            2,
            *[w for n in ("csr", "oracle", "cats", "pruned") for w in ("--against", n)],
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "relative error" in out and "firing missed" in out and "oracle" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shape", "big"], "A shape is written 1024x4096"),
        (["--tokens", 0], "A token count is from 1"),
        (["--density", 0], "A density is a share above 0"),
        (["--density", "nan"], "A density is a share above 0"),
        (["--dtype", "float64"], "A dtype is one of"),
        (["--against", "nobody"], "A baseline is one of"),
        (["--threads", 0], "The number of threads is from 1"),
        (["--threads", 100000], "The number of threads is from 1"),
        (["--quick", "--tokens", 1], "--quick measures fixed cases"),
        (
            ["nothing"],
            "There is no benchmark 'nothing'; there are accelerate, checks, encoder, explain, generate, gpu, head, "
            "jsrelu, learn, openvino, recipes, route, training, training-memory, trainings.",
        ),
        (["checks", "--tokens", 1], "Only the benchmark accelerate takes shapes"),
        (["checks", "--only", "x"], "Only the benchmark generate takes --only"),
        (["checks", "--peers-python", "x"], "Only the benchmarks encoder and generate take --peers-python"),
        (["generate", "--model", "x"], "Only the benchmarks encoder and openvino take --model"),
        (["openvino", "--data", "x"], "Only the benchmark encoder takes --data"),
        (["generate", "--only", "GPT-5"], "No case matches 'GPT-5'; there are TinyLlama/int8/int8/0.05"),
        (["generate", "--peers-python", "nowhere"], "nowhere is no interpreter that can be run"),
    ],
)
def test_a_value_without_meaning_is_one_sentence_and_exit_2(monkeypatch, capsys, tmp_path, options, said):
    path = tmp_path / "r.json"
    assert run(monkeypatch, "--json", path, *options) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(said) and err.count("\n") == 1 and not path.exists()


def test_a_file_that_cannot_be_written_is_refused_before_measuring(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(measuring, "measure_case", lambda *_, **__: pytest.fail("it measured"))
    assert run(monkeypatch, *TINY, "--json", tmp_path / "file" / "r.json") == 2
    assert capsys.readouterr().err.startswith("Cannot write")


def test_ctrl_c_keeps_the_rows_measured_so_far(monkeypatch, capsys, tmp_path):
    path, measured = tmp_path / "r.json", []
    honest = measuring.measure_case

    def measure_case(*arguments, **named):
        if measured:
            raise KeyboardInterrupt
        measured.append(honest(*arguments, **named))
        return measured[0]

    monkeypatch.setattr(measuring, "measure_case", measure_case)
    assert run(monkeypatch, *TINY, "--json", path) == 130
    out, err = capsys.readouterr()
    assert "1 of 2 rows" in out and "Interrupted" in err
    assert Record.from_json(path.read_text()).data["rows"] == measured
    assert list(tmp_path.iterdir()) == [path]


def test_another_benchmark_prints_its_section_and_goes_on_where_it_was_interrupted(monkeypatch, capsys, tmp_path):
    measured = []

    def part(name, interrupted=False):
        def rows(*_):
            measured.append(name)
            if interrupted:
                raise KeyboardInterrupt
            return [{"name": name, "data": name}]

        return rows

    monkeypatch.setattr(route, "needs_kernels", lambda: None)
    monkeypatch.setattr(route, "_flatness", part("flatness"))
    monkeypatch.setattr(route, "_speed", lambda *_: {"name": "speed"})
    monkeypatch.setattr(route, "compare", part("compare"))
    monkeypatch.setattr(route, "output_layers", part("output", interrupted=True))
    path, threads = tmp_path / "r.json", torch.get_num_threads()
    assert run(monkeypatch, "route", "--json", path) == 130
    assert measured == ["flatness", "output"] and torch.get_num_threads() == threads
    assert {"flatness", "speed"} < set(Record.from_json(path.read_text()).data)
    kept = json.loads(path.read_text())
    kept["environment"]["commit"] = kept["data"]["commits"]["speed"] = "a" * 40  # as if they were measured long ago
    del kept["data"]["commits"]["flatness"]  # as in records from before parts said it
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(route, "output_layers", part("output"))
    assert run(monkeypatch, "route", "--json", path, "--resume") == 0
    assert measured == ["flatness", "output", "output", "compare"]  # what was there is not measured again
    out = capsys.readouterr().out
    assert "### An output layer of very many classes" in out
    assert f"At commit {'a' * 12}: speed, flatness." in out
    assert run(monkeypatch, "learn", "--json", path, "--resume") == 2
    assert "holds a record of benchmark/route" in capsys.readouterr().err
    assert run(monkeypatch, "learn", "--resume") == 2
