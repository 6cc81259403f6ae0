"""An .npz of images, as samples are published."""

import pickle

import numpy as np
import pytest

from adm_jax.data.npz_file import NpzFile
from adm_jax.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
LABELS = np.array([2, 0, 1, 2, 2])


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('copied', [False, True])
def test_images_and_labels_come_back(tmp_path, save, copied):
  save(tmp_path / 'samples.npz', IMAGES, LABELS)
  source = NpzFile(tmp_path / 'samples.npz')
  source = pickle.loads(pickle.dumps(source)) if copied else source
  assert len(source) == 5 and source.image_shape == (4, 6, 3)
  assert source.class_names == ('0', '1', '2')
  for i in range(5):
    np.testing.assert_array_equal(source[i]['image'], IMAGES[i])
    assert source[i]['label'] == LABELS[i] and source[i]['label'].dtype == np.int32


def test_stored_arrays_are_mapped_and_a_copy_does_not_carry_them(tmp_path):
  """So that many processes share one file's memory."""
  images = np.zeros((1000, 8, 8, 3), np.uint8)
  np.savez(tmp_path / 'samples.npz', images)
  source = NpzFile(tmp_path / 'samples.npz')
  assert isinstance(source._images, np.memmap)
  assert len(pickle.dumps(source)) < 1000


def test_without_labels_there_are_no_classes(tmp_path):
  np.savez(tmp_path / 'a.npz', IMAGES)
  np.savez(tmp_path / 'b.npz', IMAGES, LABELS)
  for source in (NpzFile(tmp_path / 'a.npz'), NpzFile(tmp_path / 'b.npz', labeled=False)):
    assert source.class_names == () and source[0]['label'] == 0


@pytest.mark.parametrize('arrays, match', [
    ((IMAGES.astype(np.float32),), 'arr_0 is float32'), ((IMAGES[0],), r'uint8\[N H W C\]'),
    ((IMAGES[:0],), 'arr_0'), ((IMAGES, LABELS[:3]), 'arr_1'), ((IMAGES, LABELS / 2), 'arr_1'),
    ((IMAGES, LABELS - 1), 'arr_1 holds -1'), ((IMAGES, LABELS + 10**9), 'the label 10000000'),
    ((np.array([{}, None], object),), 'pickled')])
def test_what_is_not_images_is_refused(tmp_path, arrays, match):
  np.savez(tmp_path / 'wrong.npz', *arrays)
  with pytest.raises(UsageError, match=match) as error:
    NpzFile(tmp_path / 'wrong.npz')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [None, b'text', b''])
def test_what_is_no_npz_is_refused(tmp_path, content):
  path = tmp_path / 'wrong.npz'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UsageError, match='wrong.npz'):
    NpzFile(path)
