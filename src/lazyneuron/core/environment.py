"""Facts about this machine and this installation that every record carries."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """Where a number was measured.

    Attributes:
        commit: git commit of the source tree, with ``+dirty`` when it has changes; ``"unknown"`` outside a checkout.
        processor: model name as the operating system gives it.
        isa: instruction sets that matter for the kernels, as the processor reports them.
        cores: logical processors this process may use.
        threads: torch's intra-op threads.
    """

    commit: str
    lazyneuron: str
    torch: str
    python: str
    processor: str
    isa: tuple[str, ...]
    cores: int
    threads: int


_ISA_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
)


@functools.cache
def _cpuinfo() -> tuple[str, tuple[str, ...]]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    except OSError:
        pass
    return model, tuple(f for f in _ISA_FLAGS if f in flags)


def short_commit(commit: str) -> str:
    """A commit as in tables, which still says that there were changes."""
    return commit[:12] + ("+dirty" if commit.endswith("+dirty") else "")


@functools.cache
def _commit() -> str:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return "unknown"

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _installed_version() -> str:
    try:
        return metadata.version("lazyneuron")
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return "unknown"


def environment() -> Environment:
    """The facts about this process, read now."""
    processor, isa = _cpuinfo()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Environment(
        commit=_commit(),
        lazyneuron=_installed_version(),
        torch=torch.__version__,
        python=platform.python_version(),
        processor=processor,
        isa=isa,
        cores=cores,
        threads=torch.get_num_threads(),
    )
