"""All images of a data set in order, a few at a time, however many there are."""

import itertools
from typing import Iterator

import numpy as np

from adm_jax.data.sources import Source, example


def in_batches(source: Source, size: int, only: range | None = None) -> Iterator[np.ndarray]:
  """Yields all images of a data set, uint8[B H W C], B = size but for the last.

  A source that has a faster way than by index says so by a method `stream(size)`.

  Args:
    source: the data set.
    size: of a batch.
    only: the numbers of batches to yield, consecutive; by default all.

  Raises:
    UsageError: an image cannot be read.
  """
  only = range(num_batches(source, size)) if only is None else only
  if hasattr(source, 'stream'):
    yield from itertools.islice(source.stream(size), only.start, only.stop)
    return
  for i in range(only.start * size, min(only.stop * size, len(source)), size):
    yield np.stack([example(source, j)['image'] for j in range(i, min(i + size, len(source)))])


def num_batches(source: Source, size: int) -> int:
  """How many batches `in_batches` yields of all."""
  return -(-len(source) // size)
