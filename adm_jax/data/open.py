"""One way to name any data set of images, for training, evaluation and all else."""

import pathlib

from adm_jax.data.folder import Folder
from adm_jax.data.npz_file import NpzFile
from adm_jax.data.sources import Source
from adm_jax.data.tfds import Tfds
from adm_jax.errors import UsageError

_TFDS = 'tfds:'


def open_source(path: str | pathlib.Path, image_size: int | None = None, split: str = 'train',
                crop: str | None = 'center', labels: str | None = 'folders',
                channels: int | None = 3, data_dir: str | None = None) -> Source:
  """Opens the images at `path`.

  Args:
    path: 'tfds:NAME' for a prepared data set of TFDS; else a folder, a .zip, an .npz, or what
      `adm sample` wrote.
    image_size: the side of the square to crop and scale to; an .npz is taken as it is.
    crop: 'center', 'random' (as ADM's classifiers are trained), or None for images of that size.
    split: of a TFDS data set; else ignored.
    labels: where a folder's labels come from: 'folders', 'prefix' or a file, see `labels.label`.
      TFDS and .npz bring their own. None: no labels, whatever it is.
    channels: 1, 3, or None: 1 where the first picture is gray, else 3.
    data_dir: where TFDS data sets lie, see `tfds.Tfds`.

  Raises:
    UsageError: there are no such images.
  """
  if not str(path):
    raise UsageError('no data set is named: set --config.data.path to a folder, a .zip, an .npz or '
                     'tfds:NAME')
  if str(path).startswith(_TFDS):
    return Tfds(str(path).removeprefix(_TFDS), split, image_size, crop, channels or 3, data_dir,
                label=None if labels is None else 'label')
  local = pathlib.Path(path).expanduser()
  if local.suffix == '.npz' or (local.is_file() and local.suffix != '.zip'):
    return NpzFile(path, labeled=labels is not None)
  if (local / 'samples.npz').exists():
    return NpzFile(local / 'samples.npz', labeled=labels is not None)
  if (local / 'job.json').exists():
    raise UsageError(f'{path} is a sampling job that is not done: run its adm sample again, and it '
                     'goes on to samples.npz')
  return _folder(path, image_size, crop, labels, channels)


def _folder(path: str | pathlib.Path, image_size: int | None, crop: str | None, labels: str | None,
            channels: int | None) -> Folder:
  if channels is not None:
    return Folder(path, image_size, crop, labels, channels)
  folder = Folder(path, image_size, crop, labels)
  return Folder(path, image_size, crop, labels, channels=1) if folder.is_gray() else folder
