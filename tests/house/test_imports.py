"""The import direction holds, and importing lazyneuron does nothing but define names."""

import json
import subprocess
import sys

import pytest

from tests.house.rooms import (
    ALLOWED,
    PACKAGE,
    circles,
    forbidden_imports,
    import_graph,
    imported_modules,
    modules,
    room_of,
)

SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_rule():
    assert {room_of(path) for path in SOURCES} <= set(ALLOWED)


def test_imports_go_one_way():
    wrong = {}
    for path in SOURCES:
        package = ".".join(["lazyneuron", *path.relative_to(PACKAGE).parent.parts])
        found = forbidden_imports(path.read_text(), room_of(path), package)
        if found:
            wrong[str(path.relative_to(PACKAGE))] = sorted(found)
    assert not wrong


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "from lazyneuron.blocks import find_blocks"),
        ("ops", "from lazyneuron.blocks import Activation"),
        ("route", "from lazyneuron.accelerate.execution.freshness import Freshness"),
        ("blocks", "def f():\n    import lazyneuron.measure"),
        ("measure", "from lazyneuron.accelerate.machine.cost_model import CostModel"),
        ("induce", "from lazyneuron import accelerate"),
        ("accelerate", "from ..induce import recipe"),
        ("report", "from lazyneuron.blocks import MLPBlock"),
        ("measure", "import lazyneuron"),
        ("experiments", "from lazyneuron.cli import main"),
        ("save", "from lazyneuron.experiments import catalogue"),
        ("data", "TASK = 'lazyneuron.experiments.training.digits_point:train_point'"),
    ],
)
def test_the_checker_sees_a_planted_violation(room, source):
    assert forbidden_imports(source, room, f"lazyneuron.{room}")


def test_no_modules_import_each_other():
    assert circles(import_graph(modules())) == []


def test_the_checker_sees_planted_circles(tmp_path):
    sources = {
        "lazyneuron.a": "from lazyneuron.b import x",
        "lazyneuron.b": "def f():\n    from lazyneuron import c",
        "lazyneuron.c": '"""lazyneuron.d is only talked about."""\nWHERE = "lazyneuron.a:x"',
        "lazyneuron.d": "import lazyneuron.a",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    found = circles(import_graph({name: tmp_path / name for name in sources}))
    assert found == [["lazyneuron.a", "lazyneuron.b", "lazyneuron.c"]]


def test_the_build_module_needs_only_the_standard_library():
    imported = imported_modules((PACKAGE / "ops/native/build.py").read_text(), "lazyneuron.ops.native")
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


_PROBE = """
import json, os, sys, threading, warnings
import torch

def facts():
    return {
        "torch threads": torch.get_num_threads(),
        "torch inter-op threads": torch.get_num_interop_threads(),
        "default dtype": str(torch.get_default_dtype()),
        "grad mode": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "generator": torch.get_rng_state().tolist(),
        "threads of Python": threading.active_count(),
        "threads of the process": len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0,
        "warning filters": len(warnings.filters),
        "loaded libraries": sorted(map(str, torch.ops.loaded_libraries)),
        "environment": dict(os.environ),
    }

def modules():
    return {name.split(".")[0] for name in sys.modules}

before, of_torch = facts(), modules()
IMPORTING
after = facts()
print(json.dumps({
    "modules": sorted(modules() - of_torch),
    "changed": [key for key in before if before[key] != after[key]],
}))
"""


@pytest.mark.parametrize("importing", ["from lazyneuron import *", "import lazyneuron.cli.main"])
def test_importing_has_no_side_effect(importing):
    seen = json.loads(python(_PROBE.replace("IMPORTING", importing)))
    assert not {"triton", "transformers", "matplotlib", "plotly", "sklearn", "scipy", "jinja2"} & set(seen["modules"])
    assert seen["changed"] == []


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("doing", "most"),
    [
        ("import lazyneuron", 30),
        ("import lazyneuron.__main__", 40),
        ("import lazyneuron.cli.main", 200),
        (
            "import contextlib, io, lazyneuron.cli.main as main\n"
            "sys.argv = ['lazyneuron', '--help']\n"
            "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main.main()",
            450,
        ),
    ],
)
def test_what_has_to_be_quick_imports_little(doing, most):
    loaded = json.loads(
        python(f"import json, sys\nbefore = set(sys.modules)\n{doing}\nprint(json.dumps([*{{*sys.modules}} - before]))")
    )
    assert not {"torch", "numpy", "safetensors"} & set(loaded)
    assert len(loaded) <= most


ORDERS = [
    "import lazyneuron.measure, lazyneuron.explain",
    "import lazyneuron.measure.measurement, lazyneuron.explain.report",
    "from lazyneuron.measure import traffic; from lazyneuron.explain import sharpness",
    "import lazyneuron; lazyneuron.measure; import lazyneuron.explain, lazyneuron.measure",
    "from lazyneuron import *",
    "from importlib import import_module as get; get('lazyneuron.explain'); get('lazyneuron.measure')",
]
STAYS = (
    "import lazyneuron, types\n"
    "from lazyneuron import measure, explain\n"
    "assert isinstance(measure, types.FunctionType) and isinstance(explain, types.FunctionType)\n"
    "assert lazyneuron.measure is measure and lazyneuron.explain is explain\n"
    "from lazyneuron.measure import measure as same, BlockCost\n"
    "assert same is measure"
)


def test_a_function_named_like_a_room_stays_the_function():
    """Each order in a process that imported nothing of ours: copies of one that has torch, which takes the longest."""
    failed = python(
        f"""
import os, sys, torch
assert not any(name.startswith("lazyneuron") for name in sys.modules)
for order in {ORDERS!r}:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            exec(order + "\\n" + {STAYS!r}, {{}})
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        print(order)
"""
    )
    assert failed.splitlines() == []


def test_names_that_are_imported_on_use_behave_as_ever():
    python(
        "import lazyneuron as lazy, sys\n"
        "assert set(lazy.__all__) <= set(dir(lazy)) and 'torch' not in sys.modules\n"
        "names = {}; exec('from lazyneuron import *', names)\n"
        "assert all(names[name] is getattr(lazy, name) for name in lazy.__all__)\n"
        "assert lazy.train.Checkpoints and not hasattr(lazy, 'trains') and not hasattr(lazy, '__wrapped__')"
    )
