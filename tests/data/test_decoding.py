"""Files that claim to be huge pictures, or are none: one line each, before memory is taken."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from adm_jax.data import decoding, limits
from adm_jax.data.folder import Folder
from adm_jax.data.open import open_source
from adm_jax.data.sources import UnreadableImage
from adm_jax.errors import UsageError


def _chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes, pixels: bytes = b'') -> bytes:
  """A gray PNG of any size, whatever it holds."""
  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  return (b'\x89PNG\r\n\x1a\n' + _chunk(b'IHDR', header) + b''.join(more)
          + _chunk(b'IDAT', zlib.compress(pixels)) + _chunk(b'IEND', b''))


def _claiming(format: str, width: int, height: int) -> bytes:
  """An image of 8 x 8 whose header says that it is larger."""
  file = io.BytesIO()
  more = {'save_all': True, 'append_images': [Image.new('RGB', (8, 8), 'red')]}
  Image.new('RGB', (8, 8)).save(file, format, **(more if format == 'WEBP' else {}))
  data = bytearray(file.getvalue())
  if format == 'JPEG':
    at = data.index(b'\xff\xc0')
    data[at + 5:at + 9] = struct.pack('>HH', height, width)
  elif format == 'GIF':
    data[6:10] = struct.pack('<HH', width, height)
  elif format == 'BMP':
    data[18:26] = struct.pack('<ii', width, height)
  else:
    data[24:30] = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
  return bytes(data)


def _unreadable(tmp_path, data: bytes, image_size: int = 8) -> str:
  (tmp_path / 'x.png').write_bytes(data)
  with pytest.raises(UnreadableImage) as error:
    Folder(tmp_path, image_size=image_size, labels=None)[0]
  assert str(tmp_path / 'x.png') in str(error.value) and '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('data', [
    _png(60_000, 60_000), _png(12_000, 12_000), _png(2 ** 31 - 1, 2 ** 31 - 1),
    *(_claiming(format, 60_000, 60_000) for format in ('JPEG', 'GIF', 'BMP', 'WEBP')),
    *(_claiming(format, 12_000, 12_000) for format in ('JPEG', 'GIF', 'BMP', 'WEBP'))])
def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, data):
  """Between 90 and 180 million pixels Pillow would decode, and warn; from there on, raise."""
  with warnings.catch_warnings(action='error'):
    warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
    assert '134,217,728' in _unreadable(tmp_path, data)


@pytest.mark.parametrize('crop', ['center', 'random'])
def test_a_picture_too_narrow_to_crop_is_refused(crop):
  """Enlarged until its smaller side holds the crop, a line of pixels is gigabytes."""
  decoder = decoding.Decoder(256, crop)
  with pytest.raises(limits.TooLarge, match='of 1 x 100,000 pixels, its crop would have'):
    decoder(_png(1, 100_000, pixels=bytes(200_000)), np.random.default_rng(0))
  assert decoder(_png(1, 99, pixels=bytes(198))).shape == (256, 256, 3)


@pytest.mark.parametrize('chunk', [
    _chunk(b'zTXt', b'name\0\0' + zlib.compress(bytes(2 * 10**8))),
    _chunk(b'iTXt', b'name\0\1\0\0\0' + zlib.compress(bytes(2 * 10**8))),
    _chunk(b'iCCP', b'name\0\0' + zlib.compress(bytes(2 * 10**8)))])
def test_text_that_decompresses_to_far_more_is_refused(tmp_path, chunk):
  tracemalloc.start()
  _unreadable(tmp_path, _png(8, 8, chunk, pixels=bytes(72)))
  assert tracemalloc.get_traced_memory()[1] < 20e6
  tracemalloc.stop()


def test_of_an_animation_one_frame_is_decoded(tmp_path):
  frames = [Image.fromarray(np.full((9, 9, 3), i, np.uint8)) for i in range(200)]
  for format in ('GIF', 'PNG', 'WEBP'):
    file = io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:])
    assert (decoding.Decoder(9)(file.getvalue()) == 0).all()


@pytest.mark.parametrize('format', decoding.FORMATS)
def test_an_image_that_is_cut_anywhere_is_one_line_or_whole(tmp_path, format):
  file = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(file, format)
  whole, refused = file.getvalue(), 0
  for length in range(0, len(whole), 7):
    try:
      (tmp_path / 'x.png').write_bytes(whole[:length])
      Folder(tmp_path, image_size=8, labels=None)[0]
    except UnreadableImage as error:
      assert str(tmp_path / 'x.png: ') in str(error) and not str(error).endswith(': ')
      refused += 1
  assert refused > len(whole) // 7 * 0.8


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path):
  with open(tmp_path / 'x.png', 'wb') as file:
    file.truncate(limits.MOST_BYTES + 1)  # a hole, of no blocks
  with pytest.raises(UnreadableImage, match='x.png: it has 1,073,741,825 bytes'):
    Folder(tmp_path, image_size=8, labels=None)[0]


def test_whether_images_are_gray_is_asked_of_the_first_that_is_one(tmp_path):
  (tmp_path / 'a.png').write_bytes(_png(60_000, 60_000))
  (tmp_path / 'b.png').write_bytes(_png(9, 9, pixels=bytes(90)))
  assert open_source(tmp_path, 8, labels=None, channels=None).image_shape == (8, 8, 1)
  (tmp_path / 'b.png').write_bytes(b'no image')
  with pytest.raises(UsageError, match='none of the 2 images of .* can be read'):
    open_source(tmp_path, 8, labels=None, channels=None)


def test_sixteen_bits_become_eight_by_the_nearest_level():
  levels = np.arange(65536).reshape(256, 256)
  file = io.BytesIO()
  Image.fromarray(levels.astype(np.uint16)).save(file, 'PNG')
  got = decoding.Decoder(None, None, channels=1)(file.getvalue())[..., 0]
  np.testing.assert_array_equal(got, np.rint(levels / 257))


def test_the_level_that_sixteen_bits_name_transparent_is_white():
  levels = np.arange(65536).reshape(256, 256)
  file = io.BytesIO()
  Image.fromarray(levels.astype(np.uint16)).save(file, 'PNG', transparency=300)
  got = decoding.Decoder(None, None)(file.getvalue())
  expected = np.where(levels == 300, 255, np.rint(levels / 257))
  np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, axis=2))
