"""The type of numerical arrays, and how they become tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def doubles(values: Array) -> Tensor:
    """The values as a tensor of float64; a view where it can be, for arrays that may not be written a copy."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
