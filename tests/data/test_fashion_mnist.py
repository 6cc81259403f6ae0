"""Fashion-MNIST from its own files."""

import gzip
import pathlib
import struct
import tracemalloc

import numpy as np
import pytest

from adm_jax.data import fashion_mnist as module
from adm_jax.data.fashion_mnist import fashion_mnist
from adm_jax.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
LABELS = np.array([9, 0, 3, 3, 8], np.uint8)


def _write(path, array, cut=None):
  content = bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape)
  path.write_bytes(gzip.compress((content + array.tobytes())[:cut]))


@pytest.fixture
def folder(tmp_path):
  _write(tmp_path / 't10k-images-idx3-ubyte.gz', IMAGES)
  _write(tmp_path / 't10k-labels-idx1-ubyte.gz', LABELS)
  yield str(tmp_path)
  fashion_mnist.cache_clear()


def test_images_and_labels_are_those_of_the_files(folder):
  source = fashion_mnist('test', folder)
  assert source.image_shape == (28, 28, 1) and len(source) == 5
  np.testing.assert_array_equal(source.images[..., 0], IMAGES)
  assert source[4]['label'] == 8 and source.class_names[source[0]['label']] == 'ankle boot'


def test_what_is_missing_or_damaged_is_one_line(folder, tmp_path):
  def refused(match, split='test'):
    fashion_mnist.cache_clear()
    with pytest.raises(UsageError, match=match):
      fashion_mnist(split, folder)
  refused('dataset-fashion-mnist', 'train')
  refused('give train or test', 'validation')
  _write(tmp_path / 't10k-images-idx3-ubyte.gz', IMAGES, cut=-1)
  refused('no whole IDX file')
  (tmp_path / 't10k-images-idx3-ubyte.gz').write_bytes(b'not gzip')
  refused('is damaged')
  for content in (b'', b'\0\0\x08', b'\0\0\x08\x03\0', b'\0\0\x08\xff' * 9, b'\0\0\x09\1\0\0\0\0'):
    (tmp_path / 't10k-images-idx3-ubyte.gz').write_bytes(gzip.compress(content))
    refused('no whole IDX file')
  _write(tmp_path / 't10k-images-idx3-ubyte.gz', IMAGES[:3])
  refused('folder of Fashion-MNIST')


def test_any_damage_is_one_line_and_never_other_pixels(folder, tmp_path):
  """gzip raises three kinds of errors, of which one is neither an OSError nor an EOFError."""
  path = tmp_path / 't10k-images-idx3-ubyte.gz'
  whole, rng = path.read_bytes(), np.random.default_rng(0)
  for at in rng.integers(0, len(whole), 100):
    data = bytearray(whole)
    data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data if at % 3 else data[:at])
    fashion_mnist.cache_clear()
    try:
      np.testing.assert_array_equal(fashion_mnist('test', folder).images[..., 0], IMAGES)
    except UsageError as error:
      assert str(path) in str(error) and '\n' not in str(error)


@pytest.mark.parametrize('shape', [(5, 28, 28), (2**32 - 1, 28, 28), (2**32 - 1,) * 3, (0,) * 3])
def test_no_more_is_unpacked_than_the_header_says_or_the_file_can_hold(folder, tmp_path, shape):
  """300 MB of zeros in 300 KB."""
  content = bytes([0, 0, 8, 3]) + struct.pack('>3I', *shape) + bytes(3 * 10**8)
  (tmp_path / 't10k-images-idx3-ubyte.gz').write_bytes(gzip.compress(content, 1))
  del content
  tracemalloc.start()
  with pytest.raises(UsageError, match='no whole IDX file'):
    fashion_mnist('test', folder)
  assert tracemalloc.get_traced_memory()[1] < 20e6
  tracemalloc.stop()


@pytest.mark.skipif(not pathlib.Path(module._DEBIAN).exists(),
                    reason='apt install dataset-fashion-mnist')
def test_debians_files_are_the_whole_data_set():
  for split, count in (('train', 60_000), ('test', 10_000)):
    source = fashion_mnist(split)
    assert len(source) == count
    np.testing.assert_array_equal(np.bincount(source.labels), count // 10)
