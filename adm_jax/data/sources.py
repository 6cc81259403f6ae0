"""What a data set is to this project: labeled 8-bit images by index, and their metadata."""

import dataclasses
from typing import Protocol

import numpy as np

from adm_jax.errors import UsageError


class Source(Protocol):
  """A data set of images.

  A source that is read faster in order than by index has a method `stream`, see `streams`.
  A source of random crops has beside this `draws = True` and `read(index, rng)`, which training
  calls instead of `source[index]`.

  Attributes:
    name: for messages, and for the iterator's checkpoint.
    image_shape: (H, W, C).
    class_names: one per class, in the order of the labels; () where there are no labels.
  """
  name: str
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    ...

  def __getitem__(self, index: int) -> dict:
    """{'image': uint8[H W C], 'label': int32, 0 where there are no labels}.

    Raises:
      UnreadableImage: the file is no image, or damaged.
    """


class UnreadableImage(Exception):
  """One image of a data set cannot be decoded; the message names it and says why."""


@dataclasses.dataclass(frozen=True, repr=False)
class ArraySource:
  """A data set that is in memory: `images` uint8[N H W C], `labels` i32[N] or None."""
  name: str
  images: np.ndarray
  labels: np.ndarray | None = None
  class_names: tuple[str, ...] = ()

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self.images.shape[1:]

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> dict:
    label = np.int32(0) if self.labels is None else self.labels[index]
    return {'image': self.images[index], 'label': label}

  def __repr__(self) -> str:
    # Stable from run to run: an iterator's checkpoint may hold it.
    return f'ArraySource({self.name!r}, {len(self)} images)'


@dataclasses.dataclass(frozen=True)
class Rows:
  """A source's images as an array that is read as it is indexed: rows[i64[B]] is uint8[B H W C]."""
  source: Source

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    try:
      return np.stack([self.source[int(i)]['image'] for i in index])
    except UnreadableImage as error:
      raise UsageError(f'{error}: remove it, or make it again') from error
