"""The extension that OpenVINO loads: csrc/ compiled beside the installed OpenVINO, once a machine and version."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import platformdirs

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.ops.native import build
from lazyneuron.ops.native.load import status

LOADER, OPERATOR = (f"{name}.so" for name in ("lazyneuron", "lazyneuron-openvino"))
MISSING = "Exporting to OpenVINO needs openvino; run pip install 'lazyneuron[peers]'."
_KERNELS = ("quantised", "kernels", "openvino/panels", "openvino/convert")
_PLAIN = ("openvino/extension", "openvino/loader")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Installed:
    """The OpenVINO that is installed here, looked up without importing it.

    Attributes:
        root: folder of the Python package, with headers and libraries.
        library: ``libopenvino`` with its version in the name.
        threads: ``libtbb``, whose pool it runs on.
    """

    root: Path
    library: Path
    threads: Path

    @property
    def include(self) -> Path:
        """Folder of the headers."""
        return self.root / "include"


def installed() -> Installed:
    """Find OpenVINO.

    Raises:
        ImplUnavailable: it is not installed, or without headers, or with another pool of threads.
    """
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        raise ImplUnavailable(MISSING)
    root = Path(spec.origin).parent
    found = [next(iter(sorted((root / "libs").glob(f"{name}.so.*"))), None) for name in ("libopenvino", "libtbb")]
    library, threads = found
    if library is None or threads is None or not (root / "include/openvino/op/op.hpp").is_file():
        raise ImplUnavailable(
            f"The OpenVINO in {root} comes without headers or without TBB; install the wheel with pip install openvino."
        )
    return Installed(root=root, library=library, threads=threads)


def extension() -> Path:
    """The extension for this machine, compiled at its first use and kept in the user's cache folder.

    Returns:
        The file that OpenVINO is to load; the operator lies beside it.

    Raises:
        ImplUnavailable: OpenVINO, the kernels or a compiler are missing, or the compiler failed.
    """
    beside, isa = installed(), status()
    if isa.isa is None:
        raise ImplUnavailable(str(isa.reason))
    try:
        folder = platformdirs.user_cache_path("lazyneuron") / "openvino" / _identity(beside, isa.isa)
        if not folder.is_dir():
            _build(folder, beside, isa.isa)
    except build.BuildError as error:
        raise ImplUnavailable(str(error)) from error
    except OSError as error:
        raise ImplUnavailable(f"The extension cannot be written ({error}); make room in the cache folder.") from error
    return folder / LOADER


def _identity(beside: Installed, isa: str) -> str:
    """Names what the extension would be built from."""
    root = build.sources()
    flags = [build.level_flags(Path(name).name, isa) for name in _KERNELS]
    digest = hashlib.sha256(repr((beside.library.name, isa, flags)).encode())
    for path in sorted([*root.glob("*.h"), *root.glob("openvino/*"), *(root / f"{name}.cpp" for name in _KERNELS[:2])]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(target: Path, beside: Installed, isa: str) -> None:
    """Compile and link; both files appear together."""
    compiler, root = build.find_compiler(), build.sources()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as place:
        made = Path(place, "made")
        made.mkdir()

        def compiled(name: str, *flags: str) -> list[str]:
            return [*compiler, *flags, "-c", str(root / f"{name}.cpp"), "-o", str(_object(place, name))]

        commands = [compiled(name, *build.level_flags(Path(name).name, isa), *_about(beside, isa)) for name in _KERNELS]
        commands += [compiled(name, *build.level_flags("", "portable"), *_about(beside, isa)) for name in _PLAIN]
        with concurrent.futures.ThreadPoolExecutor(build.JOBS) as pool:
            list(pool.map(build.run, commands))
        objects = [str(_object(place, name)) for name in (*_KERNELS, _PLAIN[0])]
        libraries = [f"-L{beside.library.parent}", f"-l:{beside.library.name}", f"-l:{beside.threads.name}"]
        link = [*compiler, "-shared", "-Wl,--no-undefined", "-o"]
        build.run([*link, str(made / OPERATOR), *objects, *libraries])
        build.run([*link, str(made / LOADER), str(_object(place, _PLAIN[1])), "-ldl"])
        try:
            os.replace(made, target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise


def _object(place: str, name: str) -> Path:
    return Path(place, f"{Path(name).name}.o")


def _about(beside: Installed, isa: str) -> list[str]:
    portable = [] if len(build.isa_levels()) > 1 else ["-DLAZY_PORTABLE_ONLY"]
    return ["-isystem", str(beside.include), f"-DLAZY_ISA={isa}", *portable, *fits(beside.library.name, isa)]


def fits(openvino: str, isa: str) -> list[str]:
    """The macros by which the loader knows what the operator needs."""
    level = build.ISA_LEVELS.index(isa) if isa in build.ISA_LEVELS else len(build.ISA_LEVELS)
    return [
        f"-DLAZY_LEVEL={level}",
        f'-DLAZY_LEVEL_NAME="{isa}"',
        f'-DLAZY_OPENVINO="{openvino}"',
        f'-DLAZY_OPERATOR="{OPERATOR}"',
    ]
