"""Arrays in .npz files: NumPy reads ours, and we read NumPy's without reading all of it."""

import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.io import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 4, 3, 2), np.uint8)
LABELS = np.arange(11)


def _cut(*sizes):
  return npz.Pieces(IMAGES.shape, IMAGES.dtype, np.split(IMAGES, np.cumsum(sizes)))


@pytest.mark.parametrize('sizes', [(), (4, 4), (1,) * 10])
def test_numpy_reads_it_and_the_bytes_do_not_depend_on_the_pieces(tmp_path, sizes):
  npz.write(tmp_path / 'a.npz', {'arr_0': _cut(*sizes), 'arr_1': LABELS})
  npz.write(tmp_path / 'b.npz', {'arr_0': IMAGES, 'arr_1': LABELS})
  assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
  with np.load(tmp_path / 'a.npz') as arrays:
    np.testing.assert_array_equal(arrays['arr_0'], IMAGES)
    np.testing.assert_array_equal(arrays['arr_1'], LABELS)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_we_read_numpys(tmp_path, save):
  save(tmp_path / 'a.npz', IMAGES, LABELS)
  assert npz.names(tmp_path / 'a.npz') == ['arr_0', 'arr_1']
  images = npz.read(tmp_path / 'a.npz', 'arr_0')
  np.testing.assert_array_equal(images, IMAGES)
  assert not images.flags.writeable and isinstance(images, np.memmap) == (save is np.savez)
  np.testing.assert_array_equal(npz.read(tmp_path / 'a.npz', 'arr_1'), LABELS)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_rows_are_read_as_they_are_asked_for(tmp_path, save):
  """Rising, repeated, with gaps, and from the start again; more than are unpacked at once."""
  many = np.random.default_rng(1).integers(0, 256, (300, 2, 2, 1), np.uint8)
  save(tmp_path / 'a.npz', many)
  rows = npz.rows(tmp_path / 'a.npz', 'arr_0')
  assert rows.shape == many.shape and rows.dtype == np.uint8 and len(rows) == 300
  for index in ([0, 1, 2], [2, 2, 60], [62, 63, 64, 65], [190, 299, 299], [5, 6], [250]):
    np.testing.assert_array_equal(rows[np.asarray(index)], many[index])


def test_a_checksum_is_of_the_contents(tmp_path):
  for name, labels in (('a', LABELS), ('b', LABELS), ('c', LABELS + 1)):
    np.savez(tmp_path / f'{name}.npz', IMAGES, labels)
  a, b, c = (npz.checksum(tmp_path / f'{name}.npz') for name in 'abc')
  assert a == b != c


def test_what_cannot_be_read_is_refused_in_a_line(tmp_path):
  def refused(name, match, array='arr_0'):
    with pytest.raises(UsageError, match=match) as error:
      npz.read(tmp_path / name, array)
    assert '\n' not in str(error.value)

  refused('absent.npz', 'no file')
  np.savez(tmp_path / 'a.npz', IMAGES)
  refused('a.npz', 'no array mu, only arr_0', 'mu')
  whole = (tmp_path / 'a.npz').read_bytes()
  (tmp_path / 'cut.npz').write_bytes(whole[:len(whole) // 2])
  refused('cut.npz', 'not a whole .npz file')
  np.savez(tmp_path / 'pickled.npz', np.array([{}], object))
  refused('pickled.npz', 'pickled')
  np.savez(tmp_path / 'columns.npz', np.asfortranarray(IMAGES))
  refused('columns.npz', 'column by column')
