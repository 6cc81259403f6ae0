"""An .npz of images, as samples and reference batches are published, as a data set."""

import pathlib
import threading
from typing import Iterator

import numpy as np

from adm_jax.data import labels as labels_lib
from adm_jax.errors import UsageError
from adm_jax.io import npz


class NpzFile:
  """Images `arr_0` uint8[N H W C] and, if there, labels `arr_1` integer[N].

  By index, arrays that are stored as they are (`np.savez`) are mapped, not read; compressed ones
  are read whole. In order (`stream`), nothing is kept of either.

  Attributes:
    As `sources.Source`; `class_names` are the numbers up to the largest label.
  """

  def __init__(self, path: str | pathlib.Path, labeled: bool = True):
    """Opens the file; without `labeled` its labels are ignored.

    Raises:
      UsageError: the file does not hold such arrays.
    """
    self.name = str(path)
    self._path = pathlib.Path(path).expanduser()
    shape, dtype, _ = npz.read_pieces(self._path, 'arr_0', 1)
    if len(shape) != 4 or dtype != np.uint8 or 0 in shape:
      raise UsageError(f'{path}: arr_0 is {dtype}{list(shape)}: images are uint8[N H W C]')
    self._num, self.image_shape = shape[0], tuple(shape[1:])
    self._read, self._lock = None, threading.Lock()
    self._labeled = labeled
    self.labels, self.class_names = self._read_labels(path) if labeled else (None, ())
    if self.labels is None:
      self.labels = np.zeros(len(self), np.int32)

  def _read_labels(self, path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if 'arr_1' not in npz.names(self._path):
      return None, ()
    labels = npz.read(self._path, 'arr_1')
    if labels.shape != (len(self),) or labels.dtype.kind not in 'iu':
      raise UsageError(f'{path}: arr_1 is {labels.dtype}{list(labels.shape)}: labels of its '
                       f'{len(self)} images are integers [N]')
    if labels.min() < 0:
      raise UsageError(f'{path}: arr_1 holds {labels.min()}: labels are 0 or more')
    names = labels_lib.names_up_to(int(labels.max()), self._path)
    return np.asarray(labels, np.int32), names

  @property
  def _images(self) -> np.ndarray:
    with self._lock:  # a loader's threads come at once
      if self._read is None:
        self._read = npz.read(self._path, 'arr_0')
      return self._read

  def __len__(self) -> int:
    return self._num

  def __getitem__(self, index: int) -> dict:
    return {'image': np.asarray(self._images[index]), 'label': self.labels[index]}

  def stream(self, size: int) -> Iterator[np.ndarray]:
    """Yields all images in order, uint8[B H W C], B = size but for the last."""
    return npz.read_pieces(self._path, 'arr_0', size).pieces

  def fingerprint(self) -> str:
    """Tells the file's contents from others."""
    return npz.checksum(self._path)

  def __repr__(self) -> str:
    # Stable from run to run: an iterator's checkpoint may hold it.
    return f'Npz({self.name!r}, {len(self)} images)'

  def __reduce__(self):
    # A worker process maps the file itself, rather than being sent all images.
    return NpzFile, (self.name, self._labeled)
