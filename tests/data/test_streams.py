"""Streams of images: the same pixels from every kind of file, a few at a time."""

import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from adm_jax.data.digits import digits
from adm_jax.data.open import open_source
from adm_jax.data.streams import in_batches
from adm_jax.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def opened(path):
  """The images at a path as evaluation takes them."""
  return open_source(path, crop=None, labels=None, channels=None)


def all_of(images, size):
  parts = list(in_batches(images, size))
  assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
  return np.concatenate(parts)


def npz(path, save=np.savez, **arrays):
  save(path, **arrays)
  return path


@pytest.mark.parametrize('size', [1, 3, 7, 100])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_an_npz_stored_or_compressed_is_read_in_parts(tmp_path, save, size):
  path = npz(tmp_path / 'a.npz', save, arr_0=IMAGES, arr_1=np.arange(7))
  images = opened(path)
  assert (len(images), images.image_shape) == (7, (6, 5, 3))
  np.testing.assert_array_equal(all_of(images, size), IMAGES)
  np.testing.assert_array_equal(all_of(images, size), IMAGES)  # and again


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, save):
  """Of 60 MB of images, no more than a few batches are ever held."""
  path = npz(tmp_path / 'a.npz', save, arr_0=np.zeros((20_000, 32, 32, 3), np.uint8))
  tracemalloc.start()
  assert sum(len(batch) for batch in in_batches(opened(path), 64)) == 20_000
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 3e6


def test_a_sampling_job_is_its_samples(tmp_path):
  npz(tmp_path / 'samples.npz', arr_0=IMAGES)
  np.testing.assert_array_equal(all_of(opened(tmp_path), 4), IMAGES)


def test_a_sampling_job_that_is_not_done_is_refused(tmp_path):
  (tmp_path / 'shards').mkdir()
  (tmp_path / 'job.json').write_text('{}')
  with pytest.raises(UsageError, match='not done'):
    opened(tmp_path)


@pytest.mark.parametrize('channels', [1, 3])
def test_a_folder_of_pictures_is_read_by_name(tmp_path, channels):
  images = IMAGES[..., :channels]
  (tmp_path / 'sub').mkdir()
  for i, image in enumerate(images):
    Image.fromarray(image.squeeze()).save(tmp_path / ('sub' if i > 4 else '') / f'{i}.png')
  got = opened(tmp_path)
  assert (len(got), got.image_shape) == (7, (6, 5, channels))
  np.testing.assert_array_equal(all_of(got, 3), images)


def test_pictures_of_two_sizes_or_broken_ones_are_refused(tmp_path):
  Image.fromarray(IMAGES[0]).save(tmp_path / '0.png')
  Image.fromarray(IMAGES[0, :4]).save(tmp_path / '1.png')
  with pytest.raises(UsageError, match='one size'):
    all_of(opened(tmp_path), 2)
  whole = (tmp_path / '0.png').read_bytes()
  for name in ('1.png', '0.png'):
    (tmp_path / name).write_bytes(whole[:60])
    with pytest.raises(UsageError, match=f'{name}: .*truncated'):
      all_of(opened(tmp_path), 2)


def test_a_data_set_is_read_in_its_order():
  source = digits('held_out')
  np.testing.assert_array_equal(all_of(source, 100), source.images)


@pytest.mark.parametrize('arrays, message', [
    ({'images': IMAGES}, 'has no array arr_0, only images'),
    ({'arr_0': IMAGES.astype(np.float32) / 255}, 'arr_0 is float32'),
    ({'arr_0': np.full((3, 4, 4, 3), np.nan)}, 'arr_0 is float64'),
    ({'arr_0': IMAGES[..., 0]}, 'uint8.N H W C'),
    ({'arr_0': np.asfortranarray(IMAGES)}, 'column by column'),
    ({'arr_0': np.array([{'a': 1}], dtype=object)}, 'unpickling'),
    ({}, 'has no array arr_0, only nothing')])
def test_what_is_no_image_is_one_line(tmp_path, arrays, message):
  path = npz(tmp_path / 'a.npz', **arrays)
  with pytest.raises(UsageError, match=message) as error:
    opened(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_a_file_that_is_cut_short_or_damaged_is_one_line(tmp_path, save):
  path = npz(tmp_path / 'a.npz', save, arr_0=RNG.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8))
  whole = path.read_bytes()
  path.write_bytes(whole[:len(whole) // 2])
  with pytest.raises(UsageError, match='not a whole .npz'):
    opened(path)
  path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:])
  with pytest.raises(UsageError, match='cut short or damaged'):
    all_of(opened(path), 8)


def test_a_header_that_promises_more_than_there_is_is_one_line(tmp_path):
  path = tmp_path / 'a.npz'
  with zipfile.ZipFile(path, 'w') as archive, archive.open('arr_0.npy', 'w') as file:
    np.lib.format.write_array_header_1_0(
        file, {'descr': '|u1', 'fortran_order': False, 'shape': (9, 6, 5, 3)})
    file.write(IMAGES.tobytes())
  with pytest.raises(UsageError, match='cut short'):
    all_of(opened(path), 4)


def test_a_missing_or_empty_place_is_one_line(tmp_path):
  with pytest.raises(UsageError, match='there is no'):
    opened(tmp_path / 'absent')
  with pytest.raises(UsageError, match='holds no image'):
    opened(tmp_path)
