"""Compile the native CPU kernels into one shared object; plain standard library, so that ``setup.py`` can run it too.

Run by hand: ``python -m lazyneuron.ops.native.build``.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

JOBS = 2
OLDEST_TORCH = (2, 10)
_PACKAGE = Path(__file__).resolve().parents[2]
_MARK = b"lazyneuron-native-build:"

_FLAGS = ("-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-fno-math-errno")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", *_AVX2)
_ISA_FLAGS = {
    "portable": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512_vnni": (*_AVX512, "-mavx512vnni", "-mavx512bf16"),
}
ISA_LEVELS = tuple(_ISA_FLAGS)  # numbered as in csrc/bindings.cpp
_BOOLEAN_FLAGS = {  # of the Boolean cube: what counts there is a wide popcount
    "portable": (),
    "avx2": _AVX2,
    "avx512_popcnt": (*_AVX512, "-mavx512vpopcntdq"),
}
_LEVELS = {"boolean_kernels": _BOOLEAN_FLAGS}  # of others: _ISA_FLAGS
_SOURCE_FLAGS = {  # same bits at every ISA level
    "buckets": ("-ffp-contract=off",),
    "elementwise": ("-ffp-contract=off", "-fno-trapping-math", "-funroll-loops"),
    "quantise": ("-ffp-contract=off", "-fno-trapping-math"),
    "rotary": ("-ffp-contract=off", "-fno-trapping-math"),
}

# libstdc++'s shared_ptr reads a flag that glibc has since 2.32; ours says "many threads", which is always right
_THREADED = 'extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded = 0;\n'


class BuildError(RuntimeError):
    """The native kernels cannot be built here; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torch:
    """The installed PyTorch, looked up without importing it."""

    root: Path
    version: str


def sources() -> Path:
    """The folder of the C++ sources: shipped inside an installed package, top-level in a checkout.

    Raises:
        BuildError: neither is there.
    """
    for folder in (_PACKAGE / "_csrc", _PACKAGE.parents[1] / "csrc"):
        if (folder / "bindings.cpp").is_file():
            return folder
    raise BuildError(f"The C++ sources are missing from {_PACKAGE}; install lazyneuron again.")


def packaged() -> Path:
    """Where the library that belongs to this installation lies."""
    return _PACKAGE / "_native.so"


def isa_levels() -> tuple[str, ...]:
    """The ISA levels that the kernels are compiled for on this kind of machine."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ISA_LEVELS if x86 else ("portable",)


def level_flags(source: str, isa: str) -> tuple[str, ...]:
    """The compiler's flags for one kernel source at one ISA level, without what belongs to torch."""
    return (*_FLAGS, *_LEVELS.get(source, _ISA_FLAGS)[isa], *_SOURCE_FLAGS.get(source, ()))


def _kernel_builds(folder: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """Source, ISA level and flags of every kernel object; what takes longest comes first."""
    names = sorted((p.stem for p in folder.glob("*.cpp") if not p.stem.endswith("bindings")), reverse=True)
    x86 = len(isa_levels()) > 1
    return [
        (name, isa, (*flags, *_SOURCE_FLAGS.get(name, ())))
        for name in names
        for isa, flags in reversed(_LEVELS.get(name, _ISA_FLAGS).items())
        if x86 or isa == "portable"
    ]


def identity(folder: Path | None = None) -> str:
    """Names what a build would contain: a hash of the sources and the flags.

    The installed torch is not part of it: the kernels see torch only through its stable ABI, so a library that was
    built beside one release runs beside later ones.

    Args:
        folder: the sources; default :func:`sources`.

    Returns:
        16 hexadecimal digits.

    Raises:
        BuildError: there are no sources.
    """
    root = folder or sources()
    digest = hashlib.sha256(repr((_common_flags(), _THREADED, _kernel_builds(root))).encode())
    for path in sorted(root.glob("*.cpp")) + sorted(root.glob("*.h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def identity_of(library: Path) -> str | None:
    """The :func:`identity` that a library was built from, or None when it carries none or cannot be read."""
    try:
        match = re.search(_MARK + rb"([0-9a-f]{16})", library.read_bytes())
    except OSError:
        return None
    return match.group(1).decode() if match else None


def find_torch() -> Torch:
    """The installed torch with its headers.

    Raises:
        BuildError: torch is missing, too old or comes without headers.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("torch is not installed, and the native kernels are compiled against it; install torch>=2.10.")
    root = Path(spec.origin).parent
    stated = re.search(r"__version__ = '([^']+)'", (root / "version.py").read_text())
    version = stated.group(1) if stated else "0.0"
    release = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if release < OLDEST_TORCH:
        raise BuildError(f"The native kernels need torch>=2.10 (its stable ABI), got {version}; install a later torch.")
    if not (root / "include/torch/csrc/stable/library.h").is_file():
        raise BuildError(f"The torch in {root} comes without C++ headers; install an official wheel.")
    return Torch(root=root, version=version)


def find_compiler() -> list[str]:
    """The C++ compiler's command: ``$CXX``, else c++, g++ or clang++.

    Raises:
        BuildError: there is none, or the system is one that the build does not know.
    """
    if sys.platform not in ("linux", "darwin"):
        raise BuildError(f"The native kernels are built on Linux and macOS only, got {sys.platform}.")
    wanted = os.environ.get("CXX")
    if wanted:
        command = shlex.split(wanted)
        if shutil.which(command[0]) is None:
            raise BuildError(f"The compiler that CXX names ({wanted}) was not found; correct CXX or unset it.")
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("No C++ compiler was found; install g++ (11 or later) or clang++ (14 or later), or set CXX.")


def build(target: Path, *, force: bool = False) -> bool:
    """Compile and link the library, unless ``target`` was already built from these very sources.

    The work happens in a temporary folder beside the target, and the result is moved into place at the end: an
    interrupted or failed build leaves what was there.

    Args:
        target: where the library goes.
        force: build also when the library is up to date.

    Returns:
        True when something was built.

    Raises:
        BuildError: something that the build needs is missing, or the compiler failed.
    """
    folder = sources()
    name = identity(folder)
    if not force and identity_of(target) == name:
        return False
    torch, compiler = find_torch(), find_compiler()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".build-native-", dir=target.parent)
    except OSError as error:
        raise BuildError(
            f"Cannot write to {target.parent} ({error.strerror}); choose a folder you can write."
        ) from error
    with scratch as temporary:
        here = Path(temporary)
        stamp = here / "stamp.cpp"
        stamp.write_text(_stamp(name, torch.version))
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(run, _compilations(compiler, torch, folder, stamp)))
        library = here / "library.so"
        objects = map(str, in_link_order(here.glob("*.o")))
        run([*compiler, *_link_flags(torch), "-o", str(library), *objects, *_libraries()])
        os.replace(library, target)
    return True


def _stamp(name: str, torch_version: str) -> str:
    text = f"{_MARK.decode()}{name} torch={torch_version}"
    shown = 'extern "C" __attribute__((used, visibility("default")))'
    stamp = f'{shown} const char lazyneuron_native_build[] = "{text}";\n'
    return stamp + (_THREADED if sys.platform == "linux" else "")


def _common_flags() -> tuple[str, ...]:
    major, minor = OLDEST_TORCH
    target = f"-DTORCH_TARGET_VERSION=0x{(major << 56) + (minor << 48):016x}"
    return (*_FLAGS, target, *(() if len(isa_levels()) > 1 else ("-DLAZY_PORTABLE_ONLY",)))


def _compilations(compiler: list[str], torch: Torch, folder: Path, stamp: Path) -> list[list[str]]:
    """One command for each object; the kernels, which take longest, come first."""

    def command(source: Path, name: str, *flags: str) -> list[str]:
        output = ["-c", str(source), "-o", str(stamp.parent / f"{name}.o")]
        return [*compiler, *_common_flags(), f"-I{folder}", "-isystem", str(torch.root / "include"), *flags, *output]

    levels = [
        command(folder / f"{source}.cpp", f"{source}_{isa}", f"-DLAZY_ISA={isa}", *flags)
        for source, isa, flags in _kernel_builds(folder)
    ]
    bindings = [command(path, path.stem) for path in sorted(folder.glob("*bindings.cpp"))]
    return [*levels, *bindings, command(stamp, "stamp")]


def in_link_order(objects: Iterable[Path]) -> list[Path]:
    """Objects by ascending ISA level, what belongs to none first.

    Of a template of the standard library that several objects carry (``std::vector<float>::resize``), the linker keeps
    the first copy for all: it may not need more of the processor than any of its users.
    """
    levels = list(_ISA_FLAGS | _BOOLEAN_FLAGS)

    def level(path: Path) -> int:
        return max((place for place, isa in enumerate(levels) if path.stem.endswith(f"_{isa}")), default=-1)

    return sorted(objects, key=lambda path: (level(path), path.name))


def _link_flags(torch: Torch) -> list[str]:
    shared = ["-dynamiclib", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    return [*shared, f"-L{torch.root / 'lib'}"]


def _libraries() -> list[str]:
    return ["-ltorch_cpu", "-lc10", *([] if sys.platform == "darwin" else ["-Wl,--no-undefined"])]


def run(command: list[str]) -> None:
    """Run one command of the compiler.

    Raises:
        BuildError: it failed; the message is its first line that names an error.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        first = next((line for line in lines if "error" in line.lower()), lines[0])
        raise BuildError(f"The C++ compiler ({command[0]}) could not build the native kernels: {first.strip()}")


def main() -> int:
    """Build the library of this installation; the exit status is 1 when that failed."""
    try:
        built = build(packaged(), force="--force" in sys.argv[1:])
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{'Built' if built else 'Up to date:'} {packaged()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
