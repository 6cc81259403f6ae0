"""One way to name any data set of images, so that a config's can be replaced by a path."""

from adm_jax.data.folder import Folder
from adm_jax.data.npz import Npz
from adm_jax.data.sources import Source
from adm_jax.data.tfds import Tfds
from adm_jax.errors import UsageError

_TFDS = 'tfds:'


def images(path: str, image_size: int | None = None, split: str = 'train',
           crop: str | None = 'center', labels: str | None = 'folders', channels: int = 3,
           data_dir: str | None = None) -> Source:
  """The images at `path`.

  Args:
    path: 'tfds:NAME' for a prepared data set of TFDS; else a folder, a .zip or an .npz.
    image_size, crop, channels: see `decoding.Decoder`; an .npz is taken as it is.
    split: of a TFDS data set; else ignored.
    labels: where a folder's labels come from: 'folders', 'prefix' or a file, see `labels.label`.
      TFDS and .npz bring their own. None: no labels, whatever it is.
    data_dir: where TFDS data sets lie, see `tfds.Tfds`.
  """
  if not path:
    raise UsageError('no data set is named: set --config.data.path to a folder, a .zip, an .npz or '
                     'tfds:NAME')
  if path.startswith(_TFDS):
    return Tfds(path.removeprefix(_TFDS), split, image_size, crop, channels, data_dir,
                label=None if labels is None else 'label')
  if path.endswith('.npz'):
    return Npz(path, labelled=labels is not None)
  return Folder(path, image_size, crop, labels, channels)
