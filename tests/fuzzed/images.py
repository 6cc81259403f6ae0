"""What is read of images, to be fed with damaged files.

`READERS` is {name: (make, suffix, read)}: make() gives the bytes of a good file, which is to have
this suffix, and read(path) reads all that the program would. On a damaged one it returns, or raises
a UsageError.
"""

import gzip
import io
import json
import pathlib
import struct
import zipfile
from typing import Callable

import graph_files
import numpy as np
from PIL import Image

from adm_jax.data import fashion_mnist, loading
from adm_jax.data import labels as labels_lib
from adm_jax.data.decoding import FORMATS
from adm_jax.data.folder import Folder
from adm_jax.evaluation import graph_def

_FILES = [f'{("cat", "dog")[i % 2]}/{i}.png' for i in range(6)]


def _pixels(seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (12, 9, 3), np.uint8)


def _image(format: str) -> bytes:
  file, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6  # turned, so that this part is read too
  more = {} if format in ('GIF', 'BMP') else {'exif': exif}
  Image.fromarray(_pixels()).save(file, format, **more)
  return file.getvalue()


def _read_image(path: pathlib.Path) -> dict:
  """The only image of a folder, as training reads it."""
  (path.parent / 'images').mkdir(exist_ok=True)
  content = path.read_bytes()
  (path.parent / 'images' / 'x.png').write_bytes(content)  # a format is known by its content
  return _in_order(Folder(path.parent / 'images', image_size=8, labels=None))


def _in_order(folder: Folder) -> dict:
  """Every image through the loader, whose share of unreadable images may not be 1."""
  reader = loading.Reader(folder, max_unreadable=1.0)
  return {index: reader.at(index, None) for index in range(len(folder))}


def _zip(method: int) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', method) as archive:
    for i, name in enumerate(_FILES):
      png = io.BytesIO()
      Image.fromarray(_pixels(i)).save(png, 'PNG')
      archive.writestr(zipfile.ZipInfo(name), png.getvalue(), method)
  return file.getvalue()


def _read_zip(path: pathlib.Path) -> dict:
  folder = Folder(path, image_size=8)
  folder.fingerprint()
  return _in_order(folder)


def _table(suffix: str) -> bytes:
  table = {name: i % 2 for i, name in enumerate(_FILES)}
  if suffix == '.json':
    return json.dumps(table).encode()
  return ''.join(f'{name},{label}\n' for name, label in table.items()).encode()


def _read_labels(path: pathlib.Path) -> labels_lib.Labels:
  return labels_lib.from_list(_FILES, path, pathlib.Path('pets'))


def _graph() -> bytes:
  weights = np.arange(6, dtype=np.float32).reshape(2, 3)
  return (graph_files.constant('weights', weights)
          + graph_files.listed('floats', [1.5, -2.0], (4,), np.float32, packed=True)
          + graph_files.listed('integers', [-1, 300], (2,), np.int32, packed=False)
          + graph_files.node('add', 'Add'))


def _read_graph(path: pathlib.Path) -> float:
  return sum(float(array.sum()) for array in graph_def.read_constants(path).values())


def _idx() -> bytes:
  images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
  return gzip.compress(bytes([0, 0, 8, 3]) + struct.pack('>3I', 5, 28, 28) + images.tobytes())


def _read_idx(path: pathlib.Path) -> object:
  """As the images of Fashion-MNIST, beside labels that are whole."""
  folder = path.parent / 'fashion'
  folder.mkdir(exist_ok=True)
  (folder / 't10k-images-idx3-ubyte.gz').write_bytes(path.read_bytes())
  (folder / 't10k-labels-idx1-ubyte.gz').write_bytes(
      gzip.compress(bytes([0, 0, 8, 1]) + struct.pack('>I', 5) + bytes(5)))
  fashion_mnist.fashion_mnist.cache_clear()
  return fashion_mnist.fashion_mnist('test', str(folder))


READERS: dict[str, tuple[Callable[[], bytes], str, Callable[[pathlib.Path], object]]] = {
    **{f'image {format}': (lambda format=format: _image(format), '.png', _read_image)
       for format in FORMATS},
    'zip': (lambda: _zip(zipfile.ZIP_DEFLATED), '.zip', _read_zip),
    'zip stored': (lambda: _zip(zipfile.ZIP_STORED), '.zip', _read_zip),
    'labels csv': (lambda: _table('.csv'), '.csv', _read_labels),
    'labels json': (lambda: _table('.json'), '.json', _read_labels),
    'graph': (_graph, '.pb', _read_graph),
    'idx.gz': (_idx, '.gz', _read_idx),
}
