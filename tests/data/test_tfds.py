"""Data sets of TFDS, read without TensorFlow."""

import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets', reason='an extra: adm_jax[tfds]')
pytest.importorskip('array_record', reason='an extra: adm_jax[tfds]')

import tiny_tfds  # noqa: E402
from PIL import Image  # noqa: E402

from adm_jax.data import crops, loading  # noqa: E402
from adm_jax.data.open import open_source  # noqa: E402
from adm_jax.data.sources import UnreadableImage  # noqa: E402
from adm_jax.data.tfds import Tfds  # noqa: E402
from adm_jax.errors import UsageError  # noqa: E402


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  tiny_tfds.write(folder)
  tiny_tfds.write(folder, 'pets/bare', labeled=False)
  tiny_tfds.write(folder, 'hurt', damaged=(2,))
  tiny_tfds.write(folder, 'other', suffix='tfrecord')
  return str(folder)


def test_classes_and_pixels_are_those_that_were_written(data_dir):
  source = Tfds('pets', image_size=8, data_dir=data_dir)
  assert len(source) == 7 and source.class_names == tiny_tfds.CLASSES
  assert source.image_shape == (8, 8, 3)
  for i in range(7):
    want = crops.center_crop(Image.fromarray(tiny_tfds.photo(i)), 8)
    np.testing.assert_array_equal(source[i]['image'], want)
    assert source[i]['label'] == i % 3 and source[i]['label'].dtype == np.int32


def test_a_split_may_be_a_part(data_dir):
  assert len(Tfds('pets', 'train[2:5]', image_size=8, data_dir=data_dir)) == 3


def test_a_data_set_without_labels_has_no_classes(data_dir):
  for source in (Tfds('pets/bare', image_size=8, data_dir=data_dir),
                 open_source('tfds:pets', 8, labels=None, data_dir=data_dir)):
    assert source.class_names == () and source[1]['label'] == 0


def test_the_usual_folder_is_tfdss(data_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
  assert len(open_source('tfds:pets', 8)) == 7


def test_a_damaged_image_is_named_by_its_place(data_dir):
  with pytest.raises(UnreadableImage, match='image 2 of hurt train'):
    Tfds('hurt', image_size=8, data_dir=data_dir)[2]


def test_worker_processes_read_the_same(data_dir):
  source = Tfds('pets', image_size=8, crop='random', data_dir=data_dir)
  one, many = (loading.batches(source, batch_size=5, seed=0,
                                loader=loading.Loader(num_workers=workers))
               for workers in (0, 1))
  for _ in range(4):
    np.testing.assert_array_equal(next(one)['image'], next(many)['image'])


def test_no_tensorflow_is_imported(data_dir):
  code = ('import sys\nfrom adm_jax.data.tfds import Tfds\n'
          f'Tfds("pets", image_size=8, data_dir={data_dir!r})[0]\n'
          'sys.exit("tensorflow" in sys.modules)')
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@pytest.mark.parametrize('kwargs, match', [
    (dict(name='cifar10'), 'cifar10 is not prepared in .*: run adm prepare cifar10 --data-dir'),
    (dict(name='pets', split='tost'), "no split 'tost': it has train"),
    *((dict(name='pets', split=split), re.escape(f'no part {split!r} ('))
      for split in ('train[abc]', 'train[', 'train[:200%]', 'train[5:3]', 'train[3:3]')),
    (dict(name='pets', image='picture'), 'set image to image'),
    (dict(name='pets', label='image'), 'is no class'),
    (dict(name='pets', crop=None, image_size=None), "set crop='center'"),
    (dict(name='other'), 'not in the array_record format')])
def test_what_cannot_be_read_is_one_line(data_dir, kwargs, match):
  with pytest.raises(UsageError, match=match) as error:
    Tfds(**{'image_size': 8, 'data_dir': data_dir, **kwargs})
  assert '\n' not in str(error.value)


def test_a_missing_library_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(UsageError, match=r'pip install .*\[tfds\]'):
    Tfds('pets', image_size=8)
