"""Zips that are damaged, or made to harm: what can be read is, the rest is one line."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from adm_jax.data.folder import Folder
from adm_jax.data.sources import UnreadableImage
from adm_jax.errors import UsageError


def _png(value: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(np.full((9, 9, 3), value, np.uint8)).save(file, 'PNG')
  return file.getvalue()


def _zip(path, files: list[tuple[str, bytes]], method=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, 'w', method) as archive:
    for name, content in files:
      archive.writestr(zipfile.ZipInfo(name), content, method)
  return path


@pytest.fixture
def path(tmp_path):
  return _zip(tmp_path / 'pets.zip', [(f'{("cat", "dog")[i % 2]}/{i}.png', _png(i))
                                      for i in range(6)])


_FLAGS, _PACKED, _SIZE = 8, 20, 24  # where they stand in an entry of the directory


def _edit_directory(path, offset: int, value: bytes) -> None:
  """Overwrites a field of the directory's first entry, by its place in it."""
  data = bytearray(path.read_bytes())
  at = data.index(b'PK\x01\x02') + offset
  data[at:at + len(value)] = value
  path.write_bytes(data)


def _unreadable(path) -> str:
  """The message about the zip's first image, for which memory was not taken."""
  source = Folder(path, image_size=8)
  tracemalloc.start()
  with pytest.raises(UnreadableImage) as error:
    source[0]
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 20e6
  assert str(path / source.files[0]) in str(error.value) and '\n' not in str(error.value)
  assert source[1]['image'].shape == (8, 8, 3)
  return str(error.value)


def test_a_zip_that_is_cut_anywhere_is_one_line(path):
  whole = path.read_bytes()
  for length in range(0, len(whole), 5):
    path.write_bytes(whole[:length])
    with pytest.raises(UsageError) as error:
      Folder(path, image_size=8)
    assert f'{path} is no whole .zip' in str(error.value) and '\n' not in str(error.value)


def test_a_damaged_directory_is_one_line_or_read(path):
  """zipfile raises whatever comes of it, or takes what is there."""
  whole, refused = path.read_bytes(), 0
  start = whole.index(b'PK\x01\x02')
  rng = np.random.default_rng(0)
  for _ in range(300):
    data = bytearray(whole)
    for at in rng.integers(start, len(data), 3):
      data[at] = rng.choice([0, 1, 127, 255])
    path.write_bytes(data)
    try:
      source = Folder(path, image_size=8, labels=None)
      for i in range(len(source)):
        source[i]
    except (UsageError, UnreadableImage) as error:
      assert str(path) in str(error) and '\n' not in str(error)
      refused += 1
  assert refused > 100


def test_a_member_gives_no_more_than_the_zip_says(path):
  """200 MB of zeros in 200 KB, that say that they are 1,000 bytes."""
  _zip(path, [('cat/0.png', bytes(2 * 10**8)), ('dog/1.png', _png(1))])
  _edit_directory(path, _SIZE, struct.pack('<I', 1000))
  assert 'not what the directory of its zip says' in _unreadable(path)


@pytest.mark.parametrize('field', [_SIZE, _PACKED])
def test_a_member_of_gigabytes_is_no_picture(path, field):
  _edit_directory(path, field, struct.pack('<I', 2**32 - 2))
  assert '4,294,967,294 bytes, and at most' in _unreadable(path)


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_member_that_was_changed_is_not_taken_for_the_image(path, method):
  """Stored images in particular would be read with other pixels, without a word."""
  _zip(path, [('cat/0.png', b'x' * 50 + _png(0)), ('dog/1.png', _png(1))], method)
  data = bytearray(path.read_bytes())
  data[60] ^= 255
  path.write_bytes(data)
  _unreadable(path)


def test_an_encrypted_zip_is_one_line(path):
  _edit_directory(path, _FLAGS, b'\1')
  with pytest.raises(UsageError, match='pets.zip is encrypted .cat/0.png.: unpack it'):
    Folder(path, image_size=8)


def test_names_stay_below_the_zip(path):
  names = ('/cat/1.png', '../cat/2.png', '../../dog/3.png', 'a/../dog/4.png', '//cat/5.png')
  source = Folder(_zip(path, [(name, _png(0)) for name in names]), image_size=8)
  assert source.files == ['cat/1.png', 'cat/2.png', 'cat/5.png', 'dog/3.png', 'dog/4.png']
  assert source.class_names == ('cat', 'dog')
  assert all(source[i]['image'].shape == (8, 8, 3) for i in range(5))


def test_of_a_name_that_is_there_twice_the_last_counts(path, caplog):
  with pytest.warns(UserWarning):
    _zip(path, [('a.png', _png(1)), ('b.png', _png(2)), ('./a.png', _png(3)), ('a.png', _png(4))])
  source = Folder(path, image_size=8, labels=None)
  assert [source[i]['image'].max() for i in range(2)] == [4, 2]
  line, = caplog.records
  assert str(path) in line.getMessage() and '2 names more than once' in line.getMessage()


def test_a_message_is_one_line_whatever_a_name_holds(path):
  _zip(path, [('cat/a\n\x1b[1m.png', b'no image')])
  with pytest.raises(UnreadableImage) as error:
    Folder(path, image_size=8)[0]
  assert '\n' not in str(error.value) and '\x1b' not in str(error.value)
