"""What tests know of the kernels for GPUs: whether triton is here, and which device runs them.

Without a GPU they run on the CPU, in Triton's interpreter; `conftest.py` asks for it before triton is imported.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if HAS_GPU else torch.device("cpu")
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed: pip install 'lazyneuron[gpu]'")
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")
# NumPy, which works behind the interpreter, warns of infinities that kernels pass on silently
quiet = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
