"""A folder, or a zip, of images as a data set."""

import io
import pathlib
from typing import Any, Callable

import numpy as np

from adm_jax.data import decoding
from adm_jax.data import labels as labels_lib
from adm_jax.data.archives import open_files
from adm_jax.data.sources import UnreadableImage
from adm_jax.errors import UsageError, printable
from adm_jax.io import digests

SUFFIXES = ('.jpg', '.jpeg', '.png', '.gif', '.webp', '.bmp')
_SIZES_CHECKED = 64


class Folder:
  """The images of a folder or of a .zip, with their sub-folders, in the order of their paths.

  Hidden files and folders are left out, and what links lead to counts once
  (`archives.FolderFiles`).

  Attributes:
    files: the paths of its images, with slashes, relative to the folder.
    labels: i32[N], the class of each; see `labels.label`.
    draws: whether `read` depends on its `rng`.
    Others as `sources.Source`; pixels are described at `decoding.Decoder`.
  """

  def __init__(self, path: str | pathlib.Path, image_size: int | None = None,
               crop: str | None = 'center', labels: str | None = 'folders', channels: int = 3):
    """Lists the images; none is decoded yet.

    Args:
      path: the folder or the .zip.
      image_size: the side to crop to. Without a crop None, or the side that all images must have.
      crop: 'center', 'random' or None; without a crop all images must be of one size.
      labels: 'folders', 'prefix', the path of a .json or .csv, or None.
      channels: 3, or 1 for gray levels.

    Raises:
      UsageError: no such folder, no image in it, labels missing, or sizes mixed without a crop.
    """
    self._decode = decoding.Decoder(image_size, crop, channels)
    self._files = open_files(path)
    self.files = self._files.names(_is_image)
    self.name = str(path)
    self.draws = crop == 'random'
    if not self.files:
      raise UsageError(f'{path} holds no image ({" ".join(SUFFIXES)}): is it the right folder?')
    self.labels, self.class_names = labels_lib.label(self.files, labels, self._files.path)
    height, width = (image_size, image_size) if image_size else self._first(decoding.size)
    self.image_shape = (height, width, channels)
    if crop is None:
      for i in np.linspace(0, len(self) - 1, min(len(self), _SIZES_CHECKED), dtype=int):
        size = self._header(int(i), decoding.size)
        if size is not None:
          self._check_size(int(i), size)

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict:
    """As `sources.Source`; where the crop is random, this is the center's."""
    return self.read(index, None)

  def read(self, index: int, rng: np.random.Generator | None) -> dict:
    """The same with the random crop that `rng` draws, if that is the crop."""
    try:
      image = self._decode(self._files.read(self.files[index]), rng)
    except Exception as error:  # of damaged files Pillow raises anything
      raise UnreadableImage(f'{self._shown(index)}: {decoding.reason(error)}') from error
    if image.shape != self.image_shape:
      self._check_size(index, image.shape[:2])
    return {'image': image, 'label': self.labels[index]}

  def fingerprint(self) -> str:
    """Tells one state of the files from another, by their names, sizes and times."""
    content = '\n'.join(f'{name} {self._files.stamp(name)}' for name in self.files)
    return digests.short(content.encode(errors='surrogateescape'))  # names need not be UTF-8

  def is_gray(self) -> bool:
    """Whether the first image that has a header has gray levels."""
    return bool(self._first(decoding.is_gray))

  def __repr__(self) -> str:
    # Stable from run to run: an iterator's checkpoint may hold it.
    return f'Folder({self.name!r}, {len(self)} images)'

  def _header(self, index: int, read: Callable) -> Any:
    """read(file) of an image's header; None if it is damaged, which is for `self.read` to say."""
    try:
      return read(io.BytesIO(self._files.read(self.files[index])))
    except Exception:
      return None

  def _first(self, read: Callable) -> Any:
    """read(file) of the first image that has a header."""
    headers = (self._header(index, read) for index in range(len(self)))
    found = next((header for header in headers if header is not None), None)
    if found is None:
      raise UsageError(f'none of the {len(self)} images of {self.name} can be read')
    return found

  def _shown(self, index: int) -> str:
    """An image's path, for a message."""
    return printable(str(self._files.path / self.files[index]))

  def _check_size(self, index: int, size: tuple[int, int]) -> None:
    if size != self.image_shape[:2]:
      raise UsageError(
          f'{self._shown(index)} is {size[0]} x {size[1]} (H x W), not '
          f'{self.image_shape[0]} x {self.image_shape[1]}: without a crop all images must be of '
          "one size; set crop='center' and an image_size")


def _is_image(name: str) -> bool:
  # What starts with a dot is the system's, as '._1.jpg' and '__MACOSX/' of a Mac's zips are.
  parts = name.split('/')
  return (parts[-1].lower().endswith(SUFFIXES) and parts[0] != '__MACOSX'
          and not any(part.startswith('.') and part.strip('.') for part in parts))
