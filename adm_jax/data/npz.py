"""An .npz of images, as samples and reference batches are published, as a data set."""

import pathlib

import numpy as np

from adm_jax.data import labels as labels_lib
from adm_jax.errors import UsageError
from adm_jax.io import npz


class Npz:
  """Images `arr_0` uint8[N H W C] and, if there, labels `arr_1` integer[N].

  Arrays that are stored as they are (`np.savez`) are mapped, not read; compressed ones are read.

  Attributes:
    As `sources.Source`; `class_names` are the numbers up to the largest label.
  """

  def __init__(self, path: str | pathlib.Path, labelled: bool = True):
    """Opens the file; without `labelled` its labels are ignored.

    Raises:
      UsageError: the file does not hold such arrays.
    """
    self.name = str(path)
    self._path = pathlib.Path(path).expanduser()
    self._open()
    if self._images.ndim != 4 or self._images.dtype != np.uint8 or not len(self._images):
      raise UsageError(f'{path}: arr_0 is {self._images.dtype}{list(self._images.shape)}: images '
                       'are uint8[N H W C]')
    self._labelled = labelled
    if self._labels is None or not labelled:
      self.labels, self.class_names = np.zeros(len(self), np.int32), ()
      return
    if self._labels.shape != (len(self),) or self._labels.dtype.kind not in 'iu':
      raise UsageError(f'{path}: arr_1 is {self._labels.dtype}{list(self._labels.shape)}: labels '
                       f'of its {len(self)} images are integers [N]')
    if self._labels.min() < 0:
      raise UsageError(f'{path}: arr_1 holds {self._labels.min()}: labels are 0 or more')
    self.class_names = labels_lib.names_up_to(int(self._labels.max()), self._path)
    self.labels = np.asarray(self._labels, np.int32)

  def _open(self) -> None:
    self._images = npz.read(self._path, 'arr_0')
    self._labels = npz.read(self._path, 'arr_1') if 'arr_1' in npz.names(self._path) else None

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return self._images.shape[1:]

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict:
    return {'image': np.asarray(self._images[index]), 'label': self.labels[index]}

  def __repr__(self) -> str:
    # Stable from run to run: an iterator's checkpoint may hold it.
    return f'Npz({self.name!r}, {len(self)} images)'

  def __reduce__(self):
    # A worker process maps the file itself, rather than being sent all images.
    return Npz, (self.name, self._labelled)
