"""One chooser: what is named runs or raises, "auto" may fall back and says why; levels are numbered as in csrc/."""

import re

import pytest
import torch

from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.ops.choice import BEST, Choice, choose
from lazyneuron.ops.native import build
from tests.house.rooms import ROOT
from tests.kernels import needs_kernels


@needs_kernels
@pytest.mark.parametrize("impl", ["auto", "native"])
def test_kernels_that_are_there_are_taken(impl: str) -> None:
    assert choose(impl, plain="numpy") == Choice(torch.ops.lazyneuron, BEST, None)


@needs_kernels
def test_a_level_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.lazyneuron, "best_isa", lambda: 2)
    assert [choose(level, plain="gather", levels=True).isa for level in ("portable", "avx2", "avx512")] == [0, 1, 2]
    with pytest.raises(ImplUnavailable, match="up to 'avx512', not 'avx512_vnni'"):
        choose("avx512_vnni", plain="gather", levels=True)


def test_without_kernels_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAZYNEURON_NATIVE", "off")
    operators, isa, reason = choose(plain="numpy")
    assert operators is None and isa == BEST and reason is not None and "switched off" in reason
    assert choose("numpy", plain="numpy") == Choice(None)
    for impl in ("native", "avx2"):
        with pytest.raises(ImplUnavailable, match="switched off"):
            choose(impl, plain="numpy", levels=True)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"one of auto, native, numpy, got 'cuda'\."):
        choose("cuda", plain="numpy")
    with pytest.raises(ConfigError, match=r"one of auto, native, numpy, got 'avx2'\."):
        choose("avx2", plain="numpy")


def test_levels_are_numbered_as_in_the_kernels() -> None:
    source = (ROOT / "csrc/bindings.cpp").read_text()
    cases = {int(n): level for n, level in re.findall(r"case (\d): return \{(\w+)::kernel", source)}
    assert ("portable", *(cases[n] for n in sorted(cases))) == build.ISA_LEVELS and sorted(cases) == [1, 2, 3]
