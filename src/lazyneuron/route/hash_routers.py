"""Routers that hash: near inputs share units (LSH), or none do on purpose (the negative control)."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError
from lazyneuron.route.affine_hash import AffineHash, random_hash
from lazyneuron.route.router import Route, Router, ones_like_route
from lazyneuron.route.table import BucketTable


class HyperplaneLSH(Router):
    """SimHash: ``bits`` hyperplanes cut space into ``2**bits`` buckets; ``tables`` independent ones answer together.

    Args:
        features: length of an input.
        bits: hyperplanes of one table, 1 to 30.
        tables: number of tables, each with one active unit.
        offset: largest |b| of a hyperplane ``sign(a . x + b)``; 0 puts them through the origin.
        seed: of directions and offsets.

    Source: LSH model of Baykal et al. (2022), section 3: width s 2^m, s-sparse.
    """

    def __init__(self, features: int, bits: int, *, tables: int = 1, offset: float = 1.0, seed: int = 0) -> None:
        if not 1 <= bits <= 30:
            raise ConfigError(f"A table of hyperplanes has 1 to 30 bits, got {bits}.")
        super().__init__(features, tables << bits, tables)
        g = torch.Generator().manual_seed(seed)
        self.bits = bits
        self.register_buffer("directions", torch.randn(features, tables * bits, generator=g))
        self.register_buffer("offsets", offset * (2 * torch.rand(tables * bits, generator=g) - 1))
        self.directions: Tensor
        self.offsets: Tensor

    def route(self, x: Tensor) -> Route:
        """One unit in each table: the signs read as a number."""
        signs = x @ self.directions.to(x.dtype) + self.offsets.to(x.dtype) > 0
        signs = signs.reshape(*x.shape[:-1], self.active, self.bits)
        place = 1 << torch.arange(self.bits, device=x.device)
        table = torch.arange(self.active, device=x.device) << self.bits
        indices = (signs * place).sum(-1) + table
        return Route(indices, ones_like_route(indices, x))


class EuclideanLSH(Router):
    """Buckets between parallel hyperplanes, named by vectors of integers; tables grow while the router trains.

    Args:
        features: length of an input.
        bucket_width: distance of neighbouring hyperplanes, eps.
        hashes: directions of one table, D; default the number of features.
        tables: number of tables.
        capacity: most buckets of one table; the width of the layer is ``tables * capacity``.
        orthogonal: directions at right angles, so that buckets are cubes.
        seed: of directions and offsets.

    In training mode an unseen bucket gets the next free unit, until the table is full; what is then still unseen, and
    any bucket that is unseen in evaluation mode, has no unit: its weight is 0. Hashes and buckets are buffers, as bits,
    so that a ``state_dict`` carries them and a change of the module's dtype leaves them alone.

    Source: Baykal et al. (2022), section 4.
    """

    def __init__(
        self,
        features: int,
        bucket_width: float,
        *,
        hashes: int | None = None,
        tables: int = 1,
        capacity: int = 1 << 16,
        orthogonal: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(features, tables * capacity, tables)
        g = torch.Generator().manual_seed(seed)
        d = features if hashes is None else hashes
        self.capacity = capacity
        drawn = [
            random_hash(features, d, width=bucket_width, generator=g, orthogonal=orthogonal) for _ in range(tables)
        ]
        numbers = torch.stack(
            [torch.cat([h.directions.flatten(), h.offsets, h.offsets.new_tensor([h.width])]) for h in drawn]
        )
        self.register_buffer("hash_bits", numbers.view(torch.int64))
        self.register_buffer("vectors", torch.zeros(tables, capacity, d, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(tables, dtype=torch.int64))
        self.hash_bits: Tensor
        self.vectors: Tensor
        self.counts: Tensor
        self._rebuild()
        self.register_load_state_dict_post_hook(_rebuild)  # type: ignore[no-untyped-call]

    def _rebuild(self) -> None:
        """Make hashes and tables from the buffers."""
        tables, _, d = self.vectors.shape
        cut = self.features * d
        self.hashes = [
            AffineHash(directions=n[:cut].reshape(self.features, d), offsets=n[cut:-1], width=float(n[-1]))
            for n in self.hash_bits.cpu().view(torch.float64)
        ]
        self.tables = [BucketTable(d, capacity=self.capacity, on_full="share") for _ in range(tables)]
        for table, vectors, count in zip(self.tables, self.vectors, self.counts, strict=True):
            table.add(vectors[: int(count)])

    def _add(self, number: int, vectors: Tensor) -> Tensor:
        table, before = self.tables[number], len(self.tables[number])
        slots = table.add(vectors)
        if len(table) > before:
            self.vectors[number, before : len(table)] = table.vectors[before:].to(self.vectors.device)
            self.counts[number] = len(table)
        return slots

    def route(self, x: Tensor) -> Route:
        """One unit in each table."""
        rows = x.detach().reshape(-1, self.features)
        rows = (rows if rows.dtype in (torch.float32, torch.float64) else rows.float()).cpu()
        columns = []
        for number, affine in enumerate(self.hashes):
            vectors = affine.vectors(rows)
            columns.append(self._add(number, vectors) if self.training else self.tables[number].find(vectors))
        slots = torch.stack(columns, -1).to(x.device).reshape(*x.shape[:-1], self.active)
        seen = (slots >= 0) & (slots < self.capacity)
        start = torch.arange(self.active, device=x.device) * self.capacity
        return Route(torch.where(seen, slots + start, start), seen.to(x.dtype))


def _rebuild(module: EuclideanLSH, keys: object) -> None:
    module._rebuild()


class RandomHash(Router):
    """Uniform pseudo-random routing: the units follow from the input's bits, and near inputs have nothing in common.

    Args:
        features: length of an input.
        width: units, a multiple of ``active``; each of ``active`` groups gives one.
        active: units for an input.
        seed: of the hash.

    Source: the negative control of Baykal et al. (2022), section 5.
    """

    def __init__(self, features: int, width: int, *, active: int = 1, seed: int = 0) -> None:
        super().__init__(features, width, active)
        if width % active:
            raise ConfigError(f"The width is a multiple of the active units, got {width} and {active}.")
        g = torch.Generator().manual_seed(seed)
        odd = torch.randint(-(2**62), 2**62, (features, active), generator=g) * 2 + 1
        self.register_buffer("multipliers", odd)
        self.multipliers: Tensor

    def route(self, x: Tensor) -> Route:
        """One unit in each group."""
        bits = (x.detach().float() + 0.0).contiguous().view(torch.int32).long()  # + 0.0: minus zero is zero
        state = _mixed(_mixed(bits[..., None] * self.multipliers).sum(-2))
        group = self.width // self.active
        start = torch.arange(self.active, device=x.device) * group
        indices = (state >> 1 & 0x3FFFFFFFFFFFFFFF) % group + start
        return Route(indices, ones_like_route(indices, x))


def _mixed(h: Tensor) -> Tensor:
    """The finisher of splitmix64, in int64 arithmetic that wraps."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        h = (h ^ ((h >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return h ^ ((h >> 31) & ((1 << 33) - 1))
