"""The embedded digits, and batches of them."""

import numpy as np
import pytest
from sklearn import datasets

from adm_jax.data import loading
from adm_jax.data.digits import digits
from adm_jax.errors import UsageError


def test_the_splits_part_the_1797_real_digits():
  train, held_out = digits('train'), digits('held_out')
  images, labels = datasets.load_digits(return_X_y=True)
  both = np.concatenate([train.images, held_out.images]).reshape(-1, 64)
  gray = np.concatenate(
      [np.round(both / 255 * 16), np.append(train.labels, held_out.labels)[:, None]], axis=1)
  wanted = np.concatenate([images, labels[:, None]], axis=1)
  assert len(train) == 1437 and len(held_out) == 360
  assert sorted(map(tuple, gray)) == sorted(map(tuple, wanted))


def test_an_unknown_split_is_refused():
  with pytest.raises(UsageError, match='held_out'):
    digits('test')


def test_an_element_of_a_batch_is_the_sources_image_and_label():
  source = digits('held_out')
  batch = next(loading.batches(source, batch_size=5, seed=3))
  assert batch['image'].dtype == np.uint8 and batch['image'].shape == (5, 8, 8, 1)
  for image, label in zip(batch['image'], batch['label']):
    found = (source.images == image).all(axis=(1, 2, 3))
    assert label in source.labels[found]
