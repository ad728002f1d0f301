"""Build steps that pyproject.toml cannot say: ship the C++ sources, and compile them when this machine can."""

import importlib.util
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def _load_builder():
    """The package's own build module, loaded by path: importing the package would import torch."""
    path = ROOT / "src/lazyneuron/ops/native/build.py"
    spec = importlib.util.spec_from_file_location("lazyneuron_native_build", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


builder = _load_builder()


def _without_kernels() -> str | None:
    """Why this machine cannot compile the kernels, or None when it can."""
    try:
        builder.find_torch(), builder.find_compiler()
    except builder.BuildError as error:
        return str(error)
    return None


class BuildWithKernels(build_py):
    """Copy the C++ sources into the package and compile them; without torch or a compiler, warn and go on."""

    def run(self):
        """Build the package, then its kernels."""
        super().run()
        target = builder.packaged()
        if not self.editable_mode:
            package = Path(self.build_lib) / "lazyneuron"
            target = package / "_native.so"
            shutil.rmtree(package / "_csrc", ignore_errors=True)
            shutil.copytree(ROOT / "csrc", package / "_csrc")
        try:
            builder.build(target)
        except builder.BuildError as error:
            warnings.warn(f"lazyneuron installs without its native kernels: {error}", stacklevel=1)


class MaybePlatformDistribution(Distribution):
    """Fits one platform when the kernels are compiled into it, and every platform otherwise."""

    def has_ext_modules(self):
        """Whether compiled code goes in."""
        return _without_kernels() is None


class AnyPythonWheel(bdist_wheel):
    """The kernels know torch's stable ABI and nothing of Python, so one wheel serves every version of it."""

    def get_tag(self):
        """Python, ABI and platform that the wheel fits."""
        _, _, platform = super().get_tag()
        return "py3", "none", platform


setup(
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": AnyPythonWheel},
    distclass=MaybePlatformDistribution,
)
