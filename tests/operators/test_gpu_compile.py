"""The Triton kernels become machine code for the GPUs that they are for, on any machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.gpu import needs_triton

pytestmark = needs_triton
SHARED_BYTES = 99 << 10  # that every GPU from 8.0 on has for a program


def compile_for(arch: int, dtype: str, bits: int, tile: int, folder: object) -> None:
    command = [sys.executable, "-m", "tests.operators.gpu_compile", *map(str, (arch, dtype, bits, tile))]
    settings = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder)}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["first", "True"], ["down", "True"]]
    assert all(int(line[2]) <= SHARED_BYTES for line in lines)


def test_one_token_of_bfloat16_on_hopper(tmp_path):
    compile_for(90, "bf16", 16, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_every_kernel(arch, dtype, bits, tmp_path):
    for tile in (1, 16):
        compile_for(arch, dtype, bits, tile, tmp_path)
