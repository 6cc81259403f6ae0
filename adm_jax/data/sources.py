"""What a data set is to this project: labeled 8-bit images by index, and their metadata."""

import dataclasses
from typing import Protocol

import numpy as np

from adm_jax.errors import UsageError, one_line


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


def check(source: Source) -> None:
  """Raises UsageError, which names what is missing, unless `source` keeps the contract.

  Its first image is read.
  """
  kind = type(source).__name__
  missing = [name for name in ('name', 'image_shape', 'class_names', '__len__', '__getitem__')
             if not hasattr(source, name)]
  if missing:
    raise UsageError(f'{kind} is no source of images, for want of {", ".join(missing)}: see '
                     'adm_jax.data.sources.Source')
  if len(source) < 1:
    raise UsageError(f'{source.name} holds no images')
  try:
    example = source[0]
  except (UnreadableImage, UsageError):  # whoever reads it will say so, or take another
    return
  except Exception as error:
    raise UsageError(f'{kind}[0] fails: {type(error).__name__}: {one_line(error)}') from error
  if not isinstance(example, dict) or not {'image', 'label'} <= example.keys():
    raise UsageError(f'{kind}[0] is a {type(example).__name__}'
                     f'{" of " + ", ".join(map(str, example)) if isinstance(example, dict) else ""}'
                     ': it should be a dict of image and label')
  image, label = np.asarray(example['image']), np.asarray(example['label'])
  if image.dtype != np.uint8 or image.shape != tuple(source.image_shape):
    raise UsageError(f'{kind}[0] has an image {image.dtype} of shape {image.shape}: it should be '
                     f'uint8 of {tuple(source.image_shape)}, its image_shape (H, W, C)')
  if label.dtype.kind not in 'iu' or label.shape:
    raise UsageError(f'{kind}[0] has the label {example["label"]!r}: it should be a whole number')


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


def example(source: Source, index: int) -> dict:
  """Returns source[index], for those who cannot do without it.

  Raises:
    UsageError: its image cannot be read.
  """
  try:
    return source[index]
  except UnreadableImage as error:
    raise UsageError(f'{error}: remove it, or make it again') from error


@dataclasses.dataclass(frozen=True)
class Rows:
  """A source's images as an array that is read as it is indexed: rows[i64[B]] is uint8[B H W C]."""
  source: Source

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    return np.stack([example(self.source, int(i))['image'] for i in index])
