"""Streams of 8-bit images from files: a few at a time, however many there are."""

import dataclasses
import pathlib
from typing import Callable, Iterator

import numpy as np
from PIL import Image

from adm_jax.data.folder import Folder
from adm_jax.data.sources import Source, UnreadableImage
from adm_jax.errors import UsageError
from adm_jax.io import npz


@dataclasses.dataclass(frozen=True)
class Images:
  """A set of images that can be gone through any number of times.

  Attributes:
    name: for messages and reports.
    count: how many.
    shape: (H, W, C), of each.
    batches: size -> iterator over uint8[B H W C], B = size but for the last.
  """
  name: str
  count: int
  shape: tuple[int, int, int]
  batches: Callable[[int], Iterator[np.ndarray]]


def of_array(name: str, images: np.ndarray) -> Images:
  """Images uint8[N H W C] in memory."""
  def batches(size):
    return (images[i:i + size] for i in range(0, len(images), size))
  return Images(name, len(images), images.shape[1:], batches)


def of_source(source: Source) -> Images:
  """All images of a data set, in its order; one that cannot be read raises UsageError."""
  def image(index):
    try:
      return source[index]['image']
    except UnreadableImage as error:
      raise UsageError(f'{error}: remove it or make it again') from error

  def batches(size):
    for i in range(0, len(source), size):
      yield np.stack([image(j) for j in range(i, min(i + size, len(source)))])
  return Images(source.name, len(source), tuple(source.image_shape), batches)


def open_images(path: str | pathlib.Path) -> Images:
  """The images at `path`: an `.npz` with `arr_0`, pictures in a folder or a .zip, or what
  `adm sample` wrote.

  Raises:
    UsageError: there are none, or they are not whole 8-bit images of one size.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UsageError(f'there is no file or folder {path}')
  if not path.is_dir() and path.suffix != '.zip':
    return of_npz(path)
  if (path / 'samples.npz').exists():
    return of_npz(path / 'samples.npz')
  if (path / 'job.json').exists():
    raise UsageError(f'{path} is a sampling job that is not done: run its adm sample again, and it '
                     'goes on to samples.npz')
  return of_folder(path)


def of_npz(path: pathlib.Path) -> Images:
  """The images uint8[N H W C] called arr_0 of an `.npz`, stored or compressed.

  Raises:
    UsageError: it holds no such images.
  """
  shape, dtype, _ = npz.read_pieces(path, 'arr_0', 1)
  if dtype != np.uint8:
    raise UsageError(f'{path}: arr_0 is {dtype}, not uint8: give pixels from 0 to 255')
  if len(shape) != 4 or shape[-1] not in (1, 3):
    raise UsageError(f'{path}: arr_0 has the shape {shape}: give images (N, H, W, C), C 1 or 3')
  return Images(str(path), shape[0], shape[1:],
                lambda size: npz.read_pieces(path, 'arr_0', size).pieces)


def of_folder(path: pathlib.Path) -> Images:
  """The pictures in a folder or a .zip, by path; grey if the first one in a folder is, else RGB.

  Raises:
    UsageError: there are none, or not all are whole and of one size.
  """
  folder = Folder(path, crop=None, labels=None)
  if path.is_dir() and _is_grey(path / folder.files[0]):
    folder = Folder(path, crop=None, labels=None, channels=1)
  return of_source(folder)


def _is_grey(path: pathlib.Path) -> bool:
  try:
    with Image.open(path) as image:
      return image.mode == 'L'
  except OSError:  # damaged, which reading it will say
    return False
