"""Rows of neurons that do not fire are not read: each lies on a memory page of its own, which stays untouched."""

from __future__ import annotations

import dataclasses
import mmap
import struct
import sys

import pytest
import torch
from torch import Tensor

from lazyneuron.ops.gpu_mlp import reference
from lazyneuron.ops.gpu_mlp.layer import Layer
from lazyneuron.ops.gpu_mlp.tiles import Tiles
from tests.gpu import DEVICE, needs_triton, quiet
from tests.operators.gpu_blocks import inputs, make

pytestmark = [
    needs_triton,
    quiet,
    pytest.mark.skipif(DEVICE.type != "cpu", reason="pages are the CPU's: the kernels have to be interpreted"),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages of a process were touched"),
]
WIDTH = mmap.PAGESIZE // 4  # float32 numbers of a page


def on_pages(layer: Layer, wanted: Tensor) -> Layer:
    """The layer in fresh memory, of which only the wanted rows were ever touched; the others are zero once they are."""
    memory = mmap.mmap(-1, layer.rows.numel() * 4)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    rows = torch.frombuffer(memory, dtype=torch.float32).reshape(layer.rows.shape)  # keeps the memory
    for n in wanted.nonzero().flatten().tolist():
        rows[n] = layer.rows[n]
    return dataclasses.replace(layer, rows=rows)


def touched(rows: Tensor) -> Tensor:
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(rows.data_ptr() // mmap.PAGESIZE * 8)
        pages = struct.unpack(f"{len(rows)}Q", file.read(8 * len(rows)))
    return torch.tensor([page >> 63 == 1 for page in pages])


@pytest.mark.parametrize("tokens", [1, 3])
def test_only_rows_of_what_fires_are_read(tokens):
    block, x = make(WIDTH, 40, WIDTH, gated=True, shift=-1.0), inputs(tokens, WIDTH)
    fires = (reference.linear(x, block.first) > 0).any(0)
    assert 2 < fires.sum() < 38
    block = dataclasses.replace(block, up=on_pages(block.up, fires), down=on_pages(block.down, fires))
    assert torch.equal(touched(block.up.rows), fires) and torch.equal(touched(block.down.rows), fires)
    block.run(x, tiles=Tiles(inputs=256, columns=128, segments=2))
    assert torch.equal(touched(block.up.rows), fires) and torch.equal(touched(block.down.rows), fires)
    assert float(block.up.rows.sum()) != 0 and touched(block.up.rows).all()  # a read is seen


def at_ends_of_pages(layer: Layer) -> Layer:
    """Rows that end where a page does, each followed by a page that was never touched."""
    rows, width = layer.rows.shape
    memory = mmap.mmap(-1, 2 * rows * mmap.PAGESIZE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    pages = torch.frombuffer(memory, dtype=torch.float32).reshape(rows, 2 * WIDTH)
    pages[:, WIDTH - width : WIDTH] = layer.rows
    return dataclasses.replace(layer, rows=pages[:, WIDTH - width : WIDTH])


@pytest.mark.parametrize("tokens", [1, 3])
def test_nothing_behind_a_row_is_read(tokens):
    block, x = make(96, 24, 96, gated=True), inputs(tokens, 96)
    layers = {name: at_ends_of_pages(getattr(block, name)) for name in ("first", "up", "down")}
    dataclasses.replace(block, **layers).run(x, tiles=Tiles(inputs=128, columns=128, segments=2))
    for layer in layers.values():
        behind = torch.as_strided(layer.rows, (2 * len(layer.rows), 1), (WIDTH, 1), layer.rows.storage_offset())
        assert not touched(behind)[1::2].any()
