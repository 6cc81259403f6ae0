"""CIFAR-10 as a zip of JPEGs in class folders, where it lies in `shared` beside the repository."""

import io
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from adm_jax.data import loading
from adm_jax.data.folder import Folder

PATH = pathlib.Path(__file__).parents[3] / 'shared' / 'data' / 'cifar10_test.zip'
pytestmark = pytest.mark.skipif(not PATH.exists(), reason='there is no CIFAR-10 beside this')


def test_its_classes_counts_and_pixels():
  source = Folder(PATH, image_size=32)
  assert source.class_names == ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog',
                                'horse', 'ship', 'truck')
  assert np.bincount(source.labels).tolist() == [1000] * 10
  with zipfile.ZipFile(PATH) as archive:
    for i in range(0, 10_000, 501):
      want = Image.open(io.BytesIO(archive.read(source.files[i]))).convert('RGB')
      np.testing.assert_array_equal(source[i]['image'], np.asarray(want))


def test_in_order_reads_all_of_it():
  batches = loading.in_order(Folder(PATH, image_size=32), batch_size=1000)
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(labels, np.repeat(np.arange(10), 1000))
