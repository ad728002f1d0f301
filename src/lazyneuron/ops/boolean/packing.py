"""Rows of +-1 packed into bits, 64 to a word; bit 1 stands for -1."""

from __future__ import annotations

import numpy as np

from lazyneuron.ops.array import Array


def pack_rows(x: Array) -> Array:
    """Each row packed: int64 of shape (m, ceil(n / 64))."""
    return _words(np.packbits(x < 0, axis=1, bitorder="little"))


def pack_columns(x: Array) -> Array:
    """Each column packed: int64 of shape (n, ceil(m / 64)); bits past the last row are zero."""
    m, n = x.shape
    out = np.zeros((n, (m + 63) // 64 * 8), np.uint8)
    for begin in range(0, m, 1 << 16):  # in blocks: the transposed copy stays small
        part = np.ascontiguousarray((x[begin : begin + (1 << 16)] < 0).T)
        octets = np.packbits(part, axis=1, bitorder="little")
        out[:, begin // 8 : begin // 8 + octets.shape[1]] = octets
    return out.view(np.int64)


def _words(octets: Array) -> Array:
    rows, width = octets.shape
    padded = np.zeros((rows, max((width + 7) // 8, 1) * 8), np.uint8)
    padded[:, :width] = octets
    return padded.view(np.int64)


def bit_count(values: Array) -> Array:
    """Number of set bits of each integer."""
    if hasattr(np, "bitwise_count"):  # of a negative number it would count the bits of the magnitude
        return np.asarray(np.bitwise_count(values.view(f"u{values.itemsize}")), np.int64)
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(*values.shape, values.itemsize)
    return np.asarray(_OCTET[octets].sum(axis=-1))


_OCTET = np.array([bin(i).count("1") for i in range(256)], np.int64)
