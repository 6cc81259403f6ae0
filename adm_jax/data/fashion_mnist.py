"""Fashion-MNIST (Xiao et al., 2017): 70,000 photographs of clothes, 28 x 28, in ten classes.

Debian has them as the package dataset-fashion-mnist; elsewhere, the four files `*-ubyte.gz` of the
data set's own page do, in any folder.
"""

import functools
import gzip
import math
import pathlib

import numpy as np

from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError

CLASS_NAMES = ('t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker',
               'bag', 'ankle boot')
_PREFIX = {'train': 'train', 'test': 't10k'}
_DEBIAN = '/usr/share/datasets/fashion-mnist'


@functools.cache
def fashion_mnist(split: str = 'train', folder: str = _DEBIAN) -> ArraySource:
  """Reads 60,000 images to train on ('train'), or 10,000 others ('test').

  Args:
    split: which of them.
    folder: where the four .gz files lie; by default where Debian's dataset-fashion-mnist puts them.

  Raises:
    UsageError: another split, or files that are missing or damaged.
  """
  if split not in _PREFIX:
    raise UsageError(f'split={split!r}: give train or test')
  images, labels = (_read(pathlib.Path(folder).expanduser() / f'{_PREFIX[split]}-{name}-ubyte.gz')
                    for name in ('images-idx3', 'labels-idx1'))
  if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= 10:
    raise UsageError(f'{folder}: its images are {images.shape} and its labels {labels.shape}: give '
                     'the folder of Fashion-MNIST')
  return ArraySource(f'fashion_mnist {split}', images[..., None], labels.astype(np.int32),
                     CLASS_NAMES)


def _read(path: pathlib.Path) -> np.ndarray:
  """The array of bytes in an IDX file: two zeros, type 8, the number of axes, and their lengths."""
  try:
    content = gzip.decompress(path.read_bytes())
  except FileNotFoundError as error:
    raise UsageError(f'there is no {path}: apt install dataset-fashion-mnist, or name the folder '
                     'of its files in data.folder') from error
  except (OSError, EOFError) as error:
    raise UsageError(f'{path} is damaged: fetch it again') from error
  axes = content[3] if content[:3] == b'\0\0\x08' else 0
  shape = tuple(np.frombuffer(content, '>u4', axes, 4).tolist()) if len(content) > 4 * axes else ()
  if not axes or math.prod(shape) != len(content) - 4 - 4 * axes:
    raise UsageError(f'{path} is no whole IDX file of bytes: fetch it again')
  return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
