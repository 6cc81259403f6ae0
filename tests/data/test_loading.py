"""The order of training: every image once an epoch, on any number of processes, from any point."""

import dataclasses
import itertools
import logging
import multiprocessing
import os
import signal

import numpy as np
import pytest

from adm_jax.data import loading
from adm_jax.data.loading import Loader
from adm_jax.data.sources import ArraySource, UnreadableImage
from adm_jax.errors import UsageError

COUNT, BATCH, EPOCHS = 1003, 16, 3


@dataclasses.dataclass(frozen=True)
class Numbered:
  """Images 2 x 2 whose left column is their number mod 251; some may be damaged.

  It says more of an image than is asked of a source.
  """
  count: int = COUNT
  damaged: frozenset = frozenset()
  draws: bool = False
  name: str = 'numbered'
  image_shape: tuple = (2, 2, 1)
  class_names: tuple = ('all',)

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    if index in self.damaged:
      raise UnreadableImage(f'picture {index}: it is damaged')
    image = np.zeros((2, 2, 1), np.uint8)
    image[:, 0] = index % 251
    return {'image': image, 'label': np.int32(index), 'file': f'{index}.png'}

  def read(self, index, rng):
    """Draws show in the right column."""
    example = self[index]
    example['image'][:, 1] = rng.integers(256)
    return example


def _stream(processes=1, index=0, source=Numbered(), batch_size=BATCH, seed=7, **loader):
  return loading.batches(source, batch_size=batch_size, seed=seed, loader=Loader(**loader),
                          process_index=index, process_count=processes)


def _take(stream, count) -> dict:
  parts = list(itertools.islice(stream, count))
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _whole(processes, count, **kwargs) -> dict:
  """Batches put together from every process's rows, in the order of processes."""
  streams = [_stream(processes, index, **kwargs) for index in range(processes)]
  batches = [[next(stream) for stream in streams] for _ in range(count)]
  return {name: np.concatenate([part[name] for batch in batches for part in batch])
          for name in batches[0][0]}


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_three_epochs_show_every_image_once_each_on_any_number_of_processes(processes):
  """1,003 images are 62.7 batches: epochs end inside of batches, and nothing is lost there."""
  steps = -(-EPOCHS * COUNT // BATCH)
  order = _whole(processes, steps)['label'][:EPOCHS * COUNT].reshape(EPOCHS, COUNT)
  assert (np.sort(order, axis=1) == np.arange(COUNT)).all()
  assert len({tuple(epoch) for epoch in order}) == EPOCHS


def test_the_order_is_a_function_of_the_seed():
  a, b, c = (_take(_stream(seed=seed), 5)['label'] for seed in (1, 1, 2))
  np.testing.assert_array_equal(a, b)
  assert (a != c).any()


@pytest.mark.parametrize('processes', [2, 4])
def test_the_whole_batch_is_the_same_on_any_number_of_processes(processes):
  """Rows, crops and flips: process p has the p-th part of the one order."""
  settings = dict(source=Numbered(draws=True), flip=True)
  one, many = _take(_stream(**settings), 70), _whole(processes, 70, **settings)
  for name in one:
    np.testing.assert_array_equal(one[name], many[name])


@pytest.mark.parametrize('workers_before, workers_after', [(0, 0), (0, 2), (2, 0)])
def test_a_resumed_stream_goes_on_in_the_same_order(workers_before, workers_after):
  """In the middle of the second epoch; also with another number of workers."""
  settings = dict(source=Numbered(draws=True), flip=True)
  want = _take(_stream(**settings), 110)
  before = _stream(num_workers=workers_before, **settings)
  first = _take(before, 90)
  after = _stream(num_workers=workers_after, num_threads=3, **settings)
  after.set_state(before.get_state())
  rest = _take(after, 20)
  for name in want:
    np.testing.assert_array_equal(want[name], np.concatenate([first[name], rest[name]]))


def test_a_closed_stream_leaves_no_worker_and_goes_on_where_it_was():
  """The workers ignore the signals of a whole group of processes: the parent closes them."""
  want = _take(_stream(), 12)['label']
  stream = _stream(num_workers=2)
  first = _take(stream, 5)['label']
  workers = multiprocessing.active_children()
  assert len(workers) == 2
  for worker in workers:
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
  second = _take(stream, 5)['label']  # more than was read ahead
  stream.close()
  assert not any(worker.is_alive() for worker in workers)
  third = _take(stream, 2)['label']
  stream.close()
  np.testing.assert_array_equal(want, np.concatenate([first, second, third]))


def test_a_stream_can_be_put_back():
  stream = _stream()
  start = stream.get_state()
  first = _take(stream, 5)
  stream.set_state(start)
  np.testing.assert_array_equal(_take(stream, 5)['label'], first['label'])


def test_half_of_the_images_are_mirrored_and_anew_each_time():
  plain, flipped = (_take(_stream(flip=flip), 130) for flip in (False, True))
  np.testing.assert_array_equal(plain['label'], flipped['label'])
  mirrored = (flipped['image'] == plain['image'][:, :, ::-1]).all(axis=(1, 2, 3))
  kept = (flipped['image'] == plain['image']).all(axis=(1, 2, 3))
  assert (mirrored | kept).all()
  clear = plain['image'][:, 0, 0, 0] > 0
  assert 0.45 < mirrored[clear].mean() < 0.55  # 2,080 fair coins: sd 0.011
  again = {}
  for label, flip in zip(plain['label'], mirrored):
    again.setdefault(label, []).append(flip)
  assert len({tuple(flips) for flips in again.values() if len(flips) == 2}) == 4


def test_draws_differ_from_image_to_image_and_epoch_to_epoch():
  draws = _take(_stream(source=Numbered(count=64, draws=True)), 8)['image'][:, 0, 1, 0]
  assert len(set(draws)) > 90  # of 128 draws out of 256, 100.6 differ on average
  assert (draws[:64] != draws[64:]).any()
  other = _take(_stream(source=Numbered(count=64, draws=True), seed=8), 8)['image'][:, 0, 1, 0]
  assert (draws != other).any()


def test_an_unreadable_image_is_named_once_and_replaced_where_it_stood(caplog):
  damaged = frozenset({3, 4, COUNT - 1})
  with caplog.at_level(logging.WARNING):
    got = _take(_stream(source=Numbered(damaged=damaged)), 130)['label']
  want = _take(_stream(), 130)['label']
  stand_in = {3: 5, 4: 5, COUNT - 1: 0}
  np.testing.assert_array_equal(got, [stand_in.get(label, label) for label in want])
  named = [record.getMessage() for record in caplog.records]
  assert len(named) == 3 and all(
      sum(f'picture {index}:' in line for line in named) == 1 for index in damaged)


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_unreadable_images_stop_the_stream_with_one_line(workers):
  source = Numbered(damaged=frozenset(range(50)))
  stream = _stream(source=source, num_workers=workers, max_unreadable=0.02)
  match = '21 of the 1003 images of numbered cannot be read'
  with pytest.raises(UsageError, match=match) as error:
    _take(stream, 200)
  assert '\n' not in str(error.value)
  _take(_stream(source=source, max_unreadable=0.05), 200)


def test_a_source_without_any_readable_image_stops_whatever_share_is_allowed():
  source = Numbered(count=5, damaged=frozenset(range(5)))
  with pytest.raises(UsageError, match='5 of the 5'):
    next(_stream(source=source, max_unreadable=1.0))


def test_in_order_gives_every_readable_image_once():
  source = Numbered(count=37, damaged=frozenset({0, 8, 9}))
  batches = list(loading.in_order(source, batch_size=8,
                                   loader=Loader(num_threads=3, max_unreadable=0.2)))
  assert [len(batch['label']) for batch in batches] == [8, 8, 8, 8, 2]
  want = [index for index in range(37) if index not in source.damaged]
  for name in ('label', 'index'):
    np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), want)


@pytest.mark.parametrize('count, seed, first, second', [
    (10, 0, [1, 2, 4, 5, 9], [9, 6]), (37, 5, [12, 9, 25, 15, 31], [31, 34]),
    (1281167, 0, [854407, 163112, 559831, 1132672, 1090378], [67889, 140629])])
def test_the_order_is_that_of_every_version_of_grain_since_0_2_15(count, seed, first, second):
  """A run goes on with another version: images would be seen twice, others never."""
  import grain
  order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
  assert [int(order[i]) for i in range(5)] == first
  assert [int(order[count + i]) for i in range(2)] == second


def test_a_batch_is_images_that_stay_8_bit_and_labels():
  batch = next(_stream())
  assert batch.keys() == {'image', 'label'}
  assert batch['image'].dtype == np.uint8 and batch['label'].dtype == np.int32


@pytest.mark.parametrize('match, make', [
    ('batch_size=18 cannot be parted among 4', lambda: _stream(4, batch_size=18)),
    ('empty', lambda: _stream(source=Numbered(count=0))),
    ('num_threads=0', lambda: Loader(num_threads=0)),
    ('num_workers=-1', lambda: Loader(num_workers=-1)),
    ('max_unreadable=2', lambda: Loader(max_unreadable=2))])
def test_what_cannot_be_read_so_is_one_line(match, make):
  with pytest.raises(UsageError, match=match) as error:
    make()
  assert '\n' not in str(error.value)


def test_a_source_that_only_has_items_can_be_flipped():
  images = np.arange(8, dtype=np.uint8).reshape(4, 1, 2, 1)
  source = ArraySource('four', images, np.arange(4, dtype=np.int32), ('all',))
  batch = next(_stream(source=source, batch_size=40, flip=True))
  for image, label in zip(batch['image'], batch['label']):
    assert sorted(image.ravel()) == sorted(images[label].ravel())
