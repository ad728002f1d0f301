"""The emulated AVX-512 knows every intrinsic of the kernels, and its compiler changes nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lazyneuron.ops.native import build
from tests.emulated import compiler
from tests.kernels import LEVELS

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "tests/emulated/avx512.h"
needs_avx2 = pytest.mark.skipif(
    len(LEVELS) < 2 or not shutil.which("g++"), reason="the emulation is compiled by g++ for AVX2"
)

PROGRAM = r"""
#include <cstdio>
int main() {
  // saturates nowhere, wraps everywhere; the second operand's bytes are signed
  const __m512i ones = _mm512_set1_epi8(-1);
  const __m512i sum = _mm512_dpbusd_epi32(_mm512_set1_epi32(7), ones, ones);
  float z[16];
  for (int i = 0; i < 16; ++i) z[i] = i % 3 ? -1.f * i : i;
  const __mmask16 fires = _mm512_cmp_ps_mask(_mm512_loadu_ps(z), _mm512_setzero_ps(), _CMP_GT_OQ);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int packed[16];
  _mm512_storeu_si512(packed, _mm512_maskz_compress_epi32(fires, lanes));
  float parts[16];
  _mm512_storeu_ps(parts, _mm512_shuffle_f32x4(_mm512_loadu_ps(z), _mm512_loadu_ps(z), 0x1b));
  std::printf("%d %x %d %d %d %d %d %g %g", _mm_cvtsi128_si32(_mm512_castsi512_si128(sum)), fires, packed[0], packed[1],
              packed[4], packed[5], _mm512_reduce_add_epi32(lanes), parts[0], parts[8]);
}
"""


def used() -> set[str]:
    """The intrinsics of AVX-512 in the sources: 512 bits wide, or masked."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "csrc").rglob("*.*")))
    return set(re.findall(r"\b_mm512_\w+|\b_mm(?:256)?_maskz?_\w+", text))


def test_every_intrinsic_of_the_kernels_is_emulated():
    known = set(re.findall(r"#define (_mm\w+) emulated::", HEADER.read_text()))
    assert len(used()) > 50 and used() <= known


def test_no_emulation_is_left_over():
    known = set(re.findall(r"#define (_mm\w+) emulated::", HEADER.read_text()))
    assert known <= used()


def test_only_the_levels_of_avx512_are_rewritten():
    plain = ["-c", "bindings.cpp"]
    assert compiler.rewritten(plain)[-2:] == plain and not any("include" in flag for flag in compiler.rewritten(plain))
    for isa in ("avx512", "avx512_vnni"):
        flags = compiler.rewritten([*build.level_flags("kernels", isa), "-c", "kernels.cpp"])
        assert not [flag for flag in flags if flag.startswith("-mavx512")] and str(HEADER) in flags
        assert ("-DLAZY_EMULATED_VNNI" in flags) == (isa == "avx512_vnni")


@needs_avx2
def test_lanes_are_those_of_the_processor(tmp_path):
    source, program = tmp_path / "program.cpp", tmp_path / "program"
    source.write_text(PROGRAM)
    flags = [*build.level_flags("kernels", "avx512_vnni"), "-fvisibility=default", str(source), "-o", str(program)]
    subprocess.run([sys.executable, compiler.__file__, *flags], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    # 7 + 4 * 255 * -1; multiples of 3 above 0; they are 3, 6, 9, 12, 15; the groups of four backwards
    assert out == "-1013 9248 3 6 15 0 120 12 -4"
