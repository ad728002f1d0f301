"""Load the native CPU kernels into this process: lazily, once, from the package or from the user's cache folder."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from pathlib import Path

import platformdirs
import torch

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.ops.native import build

_LOCK = threading.Lock()
_SWITCH = "LAZYNEURON_NATIVE"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeStatus:
    """Facts about the native kernels of this process.

    Attributes:
        available: True when they are loaded.
        library: the file they come from, or None.
        identity: names the sources and flags they were built from, or None.
        isa: the ISA level that calls will use, or None when they are not available.
        reason: one sentence why they are not available, or None when they are.
    """

    available: bool
    library: str | None
    identity: str | None
    isa: str | None
    reason: str | None


def cached() -> Path:
    """Where a library that is compiled after the installation lies: in the user's cache folder, named for its content.

    Raises:
        BuildError: the C++ sources are missing.
    """
    return platformdirs.user_cache_path("lazyneuron") / "native" / f"native-{build.identity()}.so"


def load() -> None:
    """Make the native operators available as ``torch.ops.lazyneuron``; later calls return at once.

    Nothing is compiled here: that is the work of the installation and of ``lazyneuron doctor --build``. The
    environment variable ``LAZYNEURON_NATIVE=off`` hides the kernels.

    Raises:
        ImplUnavailable: there is no library, it was built from other sources, or it does not load.
    """
    if os.environ.get(_SWITCH, "").lower() in ("0", "off", "no"):
        raise ImplUnavailable(f"The native kernels are switched off by {_SWITCH}; unset it to use them.")
    _load_once()


def library() -> Path:
    """The file of the native kernels, which are loaded.

    Raises:
        ImplUnavailable: as of :func:`load`.
    """
    load()
    return _load_once()[0]


def status() -> NativeStatus:
    """What :func:`load` leads to here and now."""
    try:
        load()
    except ImplUnavailable as error:
        return NativeStatus(available=False, library=None, identity=None, isa=None, reason=str(error))
    library, identity = _load_once()
    isa = build.ISA_LEVELS[torch.ops.lazyneuron.best_isa()]
    return NativeStatus(available=True, library=str(library), identity=identity, isa=isa, reason=None)


@functools.cache
def _load_once() -> tuple[Path, str]:
    # functools.cache does not keep two threads from running the body at the same time
    with _LOCK:
        library, identity = _find()
        if str(library) in torch.ops.loaded_libraries:
            return library, identity
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ImplUnavailable(
                f"The native library {library} does not load ({error}); run `lazyneuron doctor --build`."
            ) from error
        return library, identity


def _find() -> tuple[Path, str]:
    try:
        wanted, candidates = build.identity(), (build.packaged(), cached())
    except build.BuildError as error:
        raise ImplUnavailable(str(error)) from error
    present = [path for path in candidates if path.is_file()]
    for path in present:
        if build.identity_of(path) == wanted:
            return path, wanted
    if present:
        raise ImplUnavailable(
            f"The native library {present[0]} was built from other sources; run `lazyneuron doctor --build`."
        )
    raise ImplUnavailable(
        "The native kernels are not built here; run `lazyneuron doctor --build` (it needs a C++ compiler)."
    )
