"""What every sub-command shares: one sentence and an exit status for each way to fail."""

import json
import subprocess
import sys

import pytest
import torch
from typer.main import get_command

from lazyneuron import __version__
from lazyneuron.accelerate.machine import costs
from lazyneuron.cli import doctor, main
from lazyneuron.core.errors import DataError
from lazyneuron.ops.native import build


def run(monkeypatch, *arguments):
    """Run the command in this process; the exit status, 0 when it returns."""
    monkeypatch.setattr(sys, "argv", ["lazyneuron", *arguments])
    try:
        main.main()
    except SystemExit as exit_:
        return exit_.code or 0
    return 0


def failing(error):
    def examine():
        raise error

    return examine


def findings(capsys):
    return {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}


def test_an_error_of_ours_is_one_sentence_and_exit_2(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_examine", failing(DataError("The file is empty; pass another.")))
    assert run(monkeypatch, "doctor") == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "The file is empty; pass another.\n")


def test_a_file_without_permission_is_one_sentence_and_exit_2(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_examine", failing(PermissionError(13, "Permission denied", "secret.csv")))
    assert run(monkeypatch, "doctor") == 2
    out, err = capsys.readouterr()
    assert err.startswith("No permission for secret.csv;") and err.count("\n") == 1 and not out


@pytest.mark.parametrize("arguments", [["--debug", "doctor"], ["doctor", "--debug"], ["doctor", "--json", "--debug"]])
def test_debug_shows_the_traceback(monkeypatch, arguments):
    monkeypatch.setattr(doctor, "_examine", failing(DataError("empty")))
    with pytest.raises(DataError):
        run(monkeypatch, *arguments)


def test_debug_after_two_dashes_is_an_argument():
    assert main._debug_first(["measure", "--", "--debug"]) == ["measure", "--", "--debug"]


def test_ctrl_c_is_one_sentence_and_exit_130(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_examine", failing(KeyboardInterrupt()))
    assert run(monkeypatch, "doctor") == 130
    assert capsys.readouterr().err == "Interrupted; nothing was left half-written.\n"


def test_a_fault_of_ours_says_so_and_exits_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_examine", failing(ZeroDivisionError("division by zero")))
    assert run(monkeypatch, "doctor") == 1
    err = capsys.readouterr().err
    assert "Unexpected ZeroDivisionError: division by zero" in err and "--debug" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no-such-command", "No such command 'no-such-command'; see `lazyneuron --help`."),
        ("--no-such-option", "No such option: --no-such-option; see `lazyneuron --help`."),
        ("doctor --no-such-option", "--no-such-option; see `lazyneuron doctor --help`."),
        ("doctor surplus", "surplus"),
        ("measure", "Missing argument"),
        ("measure model", "Missing option '--data'; see `lazyneuron measure --help`."),
        ("measure model --data", "'--data' requires an argument; see `lazyneuron measure --help`."),
        ("measure model --data x --batches -3", "got '-3'; see `lazyneuron measure --help`."),
        ("measure model --data x --batches two", "got 'two'; see `lazyneuron measure --help`."),
        ("measure model --data x --threshold some", "got 'some'"),
        ("accelerate model --data x --batch-size 0", "got '0'"),
        ("sweep digits", "Missing option '--out'"),
        ("demo --seed 1.5", "got '1.5'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_2(monkeypatch, capsys, line, said):
    assert run(monkeypatch, *line.split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.endswith(" --help`.\n") and err.count("\n") == 1
    assert not out


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("measure model --data x --json new/a.json --html other/b.html", "lazyneuron.cli.model.load_model"),
        ("explain model --data x --json new/a.json", "lazyneuron.cli.model.load_model"),
        ("accelerate model --data x --out new/model --json other/a.json", "lazyneuron.cli.model.load_model"),
        ("sparsify model --recipe relufy --out new --json other/a.json", "lazyneuron.cli.model.load_model"),
        ("learn table.csv --json new/a.json", "lazyneuron.cli.columns.read_columns"),
        ("route table.csv --target y --out new --predictions other/p.csv", "lazyneuron.cli.rows.read_rows"),
        ("sweep digits --out new/points.jsonl --figure other/f.png", "lazyneuron.cli.sweep._run"),
        ("reproduce awasthi-f1 --csv new/a.csv --json other/a.json", "lazyneuron.cli.reproduce._run"),
        ("bench --quick --json new/a.json", "lazyneuron.experiments.bench.blocks.measuring.measure_cases"),
        ("demo --out new/page", "lazyneuron.experiments.demo.pipeline.run_demo"),
    ],
)
def test_ctrl_c_leaves_no_folder_behind(monkeypatch, capsys, tmp_path, line, place):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, interrupted)
    assert run(monkeypatch, *line.split()) == 130
    assert capsys.readouterr().err.endswith("Interrupted; nothing was left half-written.\n")
    assert list(tmp_path.rglob("*")) == []


def test_version(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_names_every_sub_command(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in main._COMMANDS)


@pytest.mark.parametrize("name", main._COMMANDS)
def test_every_sub_command_has_help(monkeypatch, capsys, name):
    assert run(monkeypatch, name, "--help") == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--batches", "--batch-size", "--allow-pickle", "--figure", "--seed"])
def test_an_option_of_several_commands_means_the_same_in_all(option):
    commands = {name: command for name, command in get_command(main.app).commands.items() if name != "doctor"}
    helps = {p.help for command in commands.values() for p in command.params if option in p.opts}
    users = [name for name, command in commands.items() if any(option in p.opts for p in command.params)]
    assert len(helps) == 1 and len(users) > 1


def test_doctor_reports_without_the_kernels_what_that_costs(monkeypatch, capsys):
    monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    assert run(monkeypatch, "doctor", "--json") == 0
    native = findings(capsys)["native kernels"]
    assert not native["works"] and "LAZYNEURON_NATIVE" in native["fact"] and "plain PyTorch" in native["cost"]


def test_doctor_names_a_corrupt_cost_model(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path)
    assert run(monkeypatch, "doctor", "--json") == 0
    assert "not measured yet" in findings(capsys)["cost model, float32"]["fact"]
    monkeypatch.setattr(costs, "cache_file", lambda dtype, mark: tmp_path / f"{dtype}.json")
    (tmp_path / "torch.float32.json").write_text("{")
    assert run(monkeypatch, "doctor", "--json") == 0
    found = findings(capsys)["cost model, float32"]
    assert not found["works"] and "--remeasure" in found["fact"]


@pytest.mark.parametrize("option", ["--remeasure", "--recalibrate"])
def test_remeasure_measures_every_dtype_anew(monkeypatch, capsys, option):
    measured = []

    def cost_model_for(dtype, *, anew, progress):
        progress(1.0)
        measured.append((dtype, anew))

    monkeypatch.setattr(costs, "cost_model_for", cost_model_for)
    assert run(monkeypatch, "doctor", option, "--json") == 0
    assert measured == [(torch.float32, True), (torch.bfloat16, True), (torch.float16, True)]


def test_doctor_prints_a_table(monkeypatch, capsys):
    assert run(monkeypatch, "doctor") == 0
    out = capsys.readouterr().out
    assert "native kernels" in out and "C++ compiler" in out


def test_doctor_build_without_a_compiler_is_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build, "packaged", lambda: tmp_path / "none.so")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run(monkeypatch, "doctor", "--build") == 2
    assert "no-such-compiler" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-c", "from lazyneuron.cli.main import main; main()", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    "importing", ["lazyneuron.cli.main", "typer", "lazyneuron.cli.sweep", "typer.rich_utils", "torch"]
)
def test_ctrl_c_while_importing_is_one_sentence_and_exit_130(importing):
    code = f"""
import runpy, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {importing!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.argv = ["lazyneuron", *{["doctor"] if importing == "torch" else ["--help"]}]
runpy.run_module("lazyneuron", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Interrupted; nothing was left half-written.\n")
