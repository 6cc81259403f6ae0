"""Arrays in .npz files: NumPy reads ours, and we read NumPy's without reading all of it."""

import os
import resource
import zipfile

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


def _with_header(path, header: bytes, numbers: bytes = b'', packed=zipfile.ZIP_STORED):
  """A file whose array has any header, under the right checksum."""
  with zipfile.ZipFile(path, 'w', packed) as archive:
    archive.writestr('arr_0.npy', b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header
                     + numbers)
  return path


def _described(shape, descr="'|u1'"):
  return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()


@pytest.mark.parametrize('header, match', [
    (_described('(-1, 4)'), 'sides are 1 or more'), (_described('(True, 4)'), 'sides|no array'),
    (_described('(1000000000000, 0)'), 'sides are 1 or more'), (_described('(5,)'), 'would be'),
    (_described('(10**12,)'), 'no array'), (_described('(1000000000000,)'), 'would be'),
    (_described('(4,)', "'<U0'"), 'save it as numbers'), (_described('(4,)', "'<M8[s]'"), 'as num'),
    (_described('(4,)', "[('a', '|u1')]"), 'save it as numbers'), (b'{((', 'no array'),
    (_described('(4,)') + b'(' * 60_000, '60.* bytes'), (b'', 'no array')])
@pytest.mark.parametrize('packed', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_does_not_fit_its_numbers_is_refused(tmp_path, header, match, packed):
  path = _with_header(tmp_path / 'a.npz', header, b'1234', packed)
  for take in (npz.read, npz.rows, lambda *arguments: next(npz.read_pieces(*arguments, 2).pieces)):
    with pytest.raises(UsageError, match=match) as error:
      take(path, 'arr_0')
    assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_a_header_of_gigabytes_is_not_unpacked(tmp_path):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('arr_0.npy', b'\x93NUMPY\x02\x00' + (1 << 26).to_bytes(4, 'little')
                     + b' ' * (1 << 26))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(UsageError, match='67108864 bytes'):
    npz.read(path, 'arr_0')
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KB


def test_a_stored_array_is_compared_with_its_checksum_once(tmp_path, monkeypatch):
  path = tmp_path / 'a.npz'
  np.savez(path, IMAGES)
  npz.read(path, 'arr_0')
  reads = []
  monkeypatch.setattr(npz.zipfile.ZipExtFile, '_update_crc', lambda *_: reads.append(1))
  npz.read(path, 'arr_0')
  assert len(reads) == 1  # of the header alone
  monkeypatch.undo()
  whole = bytearray(path.read_bytes())
  whole[whole.index(IMAGES.tobytes()) + 7] ^= 1
  path.write_bytes(whole)
  os.utime(path, (0, 0))
  with pytest.raises(UsageError, match='arr_0 is cut short or damaged .*CRC'):
    npz.read(path, 'arr_0')


@pytest.mark.parametrize('seed', range(5))
def test_no_damage_ends_in_anything_but_a_line(tmp_path, seed):
  """Three bytes of a file replaced at random, a hundred times."""
  rng = np.random.default_rng(seed)
  np.savez(tmp_path / 'a.npz', IMAGES)
  whole = np.frombuffer((tmp_path / 'a.npz').read_bytes(), np.uint8)
  refused = 0
  for i in range(100):
    damaged = whole.copy()
    damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
    (tmp_path / f'{i}.npz').write_bytes(damaged.tobytes())
    try:
      npz.read(tmp_path / f'{i}.npz', 'arr_0')
    except UsageError as error:
      refused += '\n' not in str(error)
  assert refused > 50
