"""All images of a data set in order, a few at a time, however many there are."""

from typing import Iterator

import numpy as np

from adm_jax.data.sources import Source, UnreadableImage
from adm_jax.errors import UsageError


def in_batches(source: Source, size: int) -> Iterator[np.ndarray]:
  """Yields all images of a data set, uint8[B H W C], B = size but for the last.

  A source that has a faster way than by index says so by a method `stream(size)`.

  Raises:
    UsageError: an image cannot be read.
  """
  if hasattr(source, 'stream'):
    yield from source.stream(size)
    return
  for i in range(0, len(source), size):
    yield np.stack([_image(source, j) for j in range(i, min(i + size, len(source)))])


def _image(source: Source, index: int) -> np.ndarray:
  try:
    return source[index]['image']
  except UnreadableImage as error:
    raise UsageError(f'{error}: remove it, or make it again') from error
