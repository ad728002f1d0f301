"""What tests know of the native kernels: whether they are here, and which sparse path runs when they are not."""

from __future__ import annotations

import pytest

from lazyneuron.ops.native import load

NATIVE = load.status().available
SPARSE = "native" if NATIVE else "gather"
needs_kernels = pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
