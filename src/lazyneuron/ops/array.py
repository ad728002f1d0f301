"""The type of numerical arrays, and how they become tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def tensor_of(values: Any, *, dtype: npt.DTypeLike | None = None) -> Tensor:
    """The values as a tensor, of another type where one is named: a view where it can be, else a copy."""
    array = np.ascontiguousarray(values, dtype=dtype)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
