"""Build steps that pyproject.toml cannot say: ship the C++ sources, and compile them when this machine can."""

import importlib.util
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def _builder():
    """The package's own build module, loaded by path: importing the package would import torch."""
    path = ROOT / "src/lazyneuron/accelerate/native/build.py"
    spec = importlib.util.spec_from_file_location("lazyneuron_native_build", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _buildable(builder) -> bool:
    try:
        builder.find_torch(), builder.find_compiler()
    except builder.BuildError:
        return False
    return True


class BuildWithKernels(build_py):
    """Copy the C++ sources into the package and compile them; without torch or a compiler, warn and go on."""

    def run(self):
        super().run()
        builder = _builder()
        target = builder.packaged()
        if not self.editable_mode:
            package = Path(self.build_lib) / "lazyneuron"
            shutil.copytree(ROOT / "csrc", package / "_csrc", dirs_exist_ok=True)
            target = package / "_native.so"
        try:
            builder.build(target)
        except builder.BuildError as error:
            warnings.warn(f"lazyneuron installs without its native kernels: {error}", stacklevel=1)


class PlatformWheel(bdist_wheel):
    """A wheel that holds the library fits one platform but every Python; one without it fits all."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not _buildable(_builder())

    def get_tag(self):
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})
