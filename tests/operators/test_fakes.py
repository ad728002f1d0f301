"""Torch's own checks of every operator's schema, and of its fake implementation against what it really returns."""

from __future__ import annotations

import pytest
import torch

from lazyneuron.ops.boolean import operators as boolean
from lazyneuron.ops.buckets import operators as buckets
from lazyneuron.ops.candidates import operators as candidates
from lazyneuron.ops.decoding import operators as decoding
from lazyneuron.ops.fingerprint import fingerprint
from lazyneuron.ops.fired import operators as fired
from lazyneuron.ops.jsrelu import native as jsrelu
from lazyneuron.ops.packing import operators as packing
from lazyneuron.ops.quantised import operators as quantised
from lazyneuron.ops.sparse_mlp import native as sparse_mlp
from tests.kernels import needs_kernels
from tests.operators.calls import CALLS, operator

pytestmark = needs_kernels

# what returns no tensor has no fake
NUMBERS = {"best_isa", "best_boolean_isa", "bucket_insert", "first_change", "quantise"}


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    rooms = (boolean.operators, fingerprint.native_ops, buckets.native_ops, jsrelu.register, quantised.operators)
    for register in (
        *rooms,
        packing.operators,
        fired.operators,
        candidates.operator,
        decoding.operators,
        sparse_mlp.op,
    ):
        register()


@pytest.mark.parametrize("name", [name for name in CALLS if name.split()[0] not in NUMBERS])
def test_the_fake_is_like_the_result(name: str) -> None:
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(operator(name), tuple(CALLS[name]().values()), test_utils=checks)
