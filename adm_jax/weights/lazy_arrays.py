"""Arrays that are made when they are asked for, so that gigabytes of weights need little memory.

A `LazyArray` in place of an array says its shape and dtype; `np.asarray(deferred)` makes it, and
nothing keeps what was made.
"""

import dataclasses
import math
from typing import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class LazyArray:
  """An array of `shape` and `dtype` that `make()` would return."""
  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[], np.ndarray]

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self.make(), dtype)


def is_possible(shape: tuple[int, ...]) -> bool:
  """Whether an array may have a shape that a file tells: one without numbers may tell any."""
  return len(shape) <= 32 and (0 not in shape or math.prod(side or 1 for side in shape) <= 1 << 40)


def raw_bytes(array: np.ndarray | LazyArray) -> memoryview:
  """The bytes of an array, last axis fastest."""
  return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
