"""What tests know of the native kernels: whether they are here, and which sparse path runs when they are not."""

from __future__ import annotations

import pytest
import torch

from lazyneuron.accelerate.path import sparse_paths
from lazyneuron.ops.native import load

NATIVE = load.status().available
LEVELS = range(1 + int(torch.ops.lazyneuron.best_isa()) if NATIVE else 0)  # numbers of the ISA levels that run here
SPARSE = "native" if NATIVE else "gather"
SPARSE_PATH = sparse_paths()[0]  # what "auto" tries first
needs_kernels = pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
