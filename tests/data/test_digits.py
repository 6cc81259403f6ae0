"""The embedded digits and the pipeline over them."""

import numpy as np
import pytest
from sklearn import datasets

from adm_jax.data import loading
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError

COUNT = 19
BATCH = 4


def _numbered() -> ArraySource:
  """Images that carry their own number."""
  images = np.arange(COUNT, dtype=np.uint8).reshape(-1, 1, 1, 1)
  return ArraySource('numbered', images, np.arange(COUNT, dtype=np.int32), ('all',))


def _stream(seed: int = 0):
  return loading.batches(_numbered(), batch_size=BATCH, seed=seed)


def _take(iterator, count: int) -> np.ndarray:
  return np.concatenate([next(iterator)['label'] for _ in range(count)])


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


def test_every_epoch_shows_every_image_once_in_a_new_order():
  order = _take(_stream(), 3 * COUNT)[:3 * COUNT].reshape(3, COUNT)
  assert (np.sort(order, axis=1) == np.arange(COUNT)).all()
  assert len({tuple(epoch) for epoch in order}) == 3


def test_the_order_is_a_function_of_the_seed():
  a, b, c = (_take(_stream(seed), 5) for seed in (1, 1, 2))
  assert (a == b).all() and (a != c).any()


def test_a_restored_iterator_goes_on_exactly():
  stream = _stream()
  _take(stream, 7)
  state = stream.get_state()
  rest = _take(stream, 9)
  again = _stream()
  again.set_state(state)
  assert (_take(again, 9) == rest).all()


def test_an_empty_source_is_refused():
  empty = ArraySource('nothing', np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int32), ())
  with pytest.raises(UsageError, match='empty'):
    loading.batches(empty, batch_size=1, seed=0)
