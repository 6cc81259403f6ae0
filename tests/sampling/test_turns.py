"""A job on processes that share nothing but a folder, or a bucket: every image once, whoever makes
it, whoever vanishes, whoever is started again."""

import collections
import contextlib
import io
import random
import time

import buckets
import numpy as np
import processes
import pytest

from adm_jax.errors import UsageError
from adm_jax.io import heartbeats, parts
from adm_jax.io.parts import Part
from adm_jax.sampling import shards, turns

NUM, SHAPE = 46, (2, 3, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM, *SHAPE), np.uint8)
LABELS = np.arange(NUM)
SIZE = 4


class Gone(Exception):
  """A process is killed."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(heartbeats, 'SECONDS', 1)
  monkeypatch.setattr(turns, '_PAUSE', 0.02)
  monkeypatch.setattr(shards, '_IMAGES_PER_SHARD', 8)


@pytest.fixture(params=['disk', 'bucket'])
def folder(request, tmp_path, monkeypatch):
  if request.param == 'disk':
    yield tmp_path / 'out'
  else:
    with buckets.in_force(monkeypatch) as bucket:
      yield bucket


def work(folder, part, made, most=None, seconds=0.0, size=SIZE):
  """What a process does; after `most` batches it is killed, and says nothing more."""
  with contextlib.ExitStack() as stack:
    job = stack.enter_context(shards.open_folder(folder, {'version': 2, 'seed': 0}, NUM, SHAPE,
                                                 LABELS, part))
    heart = stack.enter_context(heartbeats.Heart(folder, part))
    bounds = turns.bounds(NUM, size, part.count)
    own = turns.Turns(size, bounds[part.index:part.index + 2], bounds, part)

    def make():
      filling = job.filling()
      for count, (begin, end) in enumerate(turns.ranges(job, filling, own, heart)):
        if count == most:
          heart._stop.set()
          heart._write = lambda: None
          raise Gone
        time.sleep(seconds)
        made.append((begin, end))
        filling.put(begin, IMAGES[begin:end])
        heart.made(end - begin)
    try:
      turns.complete(job, part, heart, make)
    except Gone:
      return False
    return job.joined()


def at_once(folder, count, made, most=lambda index: None, seconds=0.05):
  results = [None] * count
  def one(index):
    results[index] = work(folder, Part(index, count), made, most(index), seconds)
  processes.in_threads(one, count)
  return results


def bytes_of(folder):
  return (folder / 'samples.npz').read_bytes()


@pytest.fixture
def whole(folder):
  """The bytes of one process, in a folder of the same kind."""
  other = folder.parent / 'whole'
  work(other, Part(), [])
  found = bytes_of(other)
  with np.load(io.BytesIO(found)) as arrays:
    np.testing.assert_array_equal(arrays['arr_0'], IMAGES)
    np.testing.assert_array_equal(arrays['arr_1'], LABELS)
  return found


@pytest.mark.parametrize('count', [2, 4, 15])  # of 12 batches
def test_several_processes_make_each_batch_once_and_the_bytes_of_one(folder, whole, count):
  made = []
  assert all(at_once(folder, count, made))
  assert bytes_of(folder) == whole
  # One that begins late may meet one that helps it at a batch; they are at most one each.
  extra = sum(times - 1 for times in collections.Counter(made).values())
  assert {begin for begin, _ in made} == set(range(0, NUM, SIZE)) and extra <= count
  assert sorted(path.name for path in folder.iterdir() if path.name[0] != '.') in (
      ['job.json', 'samples.npz'], ['hosts', 'job.json', 'samples.npz'])


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_parts_one_after_the_other_in_any_order(folder, whole, order):
  made = []
  for place, index in enumerate(order):
    before = len(made)
    assert work(folder, Part(index, 3, alone=True), made) == (place == 2)
    bounds = turns.bounds(NUM, SIZE, 3)
    assert all(bounds[index] <= begin < bounds[index + 1] for begin, _ in made[before:])
  assert bytes_of(folder) == whole and len(made) == len(set(made))


def test_the_others_make_what_a_lost_process_had_not(folder, whole):
  made = []
  results = at_once(folder, 3, made, most=lambda index: 1 if index == 1 else None)
  assert results == [True, False, True] and bytes_of(folder) == whole


def test_lost_again_and_again_and_resumed_on_other_numbers_nothing_stored_is_made_again(folder,
                                                                                       whole):
  draw, made = random.Random(1), []
  for _ in range(10):
    stored = _stored(folder)
    now = []
    at_once(folder, draw.choice([1, 2, 3, 5]), now, lambda index: draw.choice([0, 1, 2]))
    assert not any(turns.meet(batch, range_) for batch in now for range_ in stored)
    made += now
  at_once(folder, 2, made)
  assert bytes_of(folder) == whole


def _stored(folder):
  found = (folder / 'shards').iterdir() if (folder / 'shards').is_dir() else []
  return [tuple(map(int, path.name.split('-')[:2])) for path in found]


def test_a_damaged_shard_is_found_and_made_again(folder, whole):
  work(folder, Part(0, 3, alone=True), [])
  shard = next((folder / 'shards').iterdir())
  shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
  job = shards.Shards(folder, NUM, SHAPE, LABELS)
  damaged, = job.damaged()
  assert shard.name in damaged
  for index in (1, 2):
    work(folder, Part(index, 3, alone=True), [])
  assert not (folder / 'samples.npz').exists()
  work(folder, Part(), [])
  assert bytes_of(folder) == whole and not job.damaged()


def test_images_are_read_while_they_are_made_and_after(folder):
  work(folder, Part(1, 3, alone=True), [])
  job = shards.Shards(folder, NUM, SHAPE, LABELS)
  begin, end, _ = turns.bounds(NUM, SIZE, 3)[1:]
  index = np.array([begin, begin + 5, end - 1, end - 1])
  np.testing.assert_array_equal(job[index], IMAGES[index])
  with pytest.raises(FileNotFoundError):
    job[np.array([begin - 1])]
  work(folder, Part(), [])
  np.testing.assert_array_equal(job[np.arange(NUM)], IMAGES)


def test_a_whole_job_and_parts_keep_out_of_each_others_way(tmp_path):
  def opened(part):
    return shards.open_folder(tmp_path, {'version': 2, 'seed': 0}, NUM, SHAPE, LABELS, part)
  with opened(Part(0, 2)), opened(Part(1, 2)):
    with pytest.raises(UsageError, match='another process'), opened(Part()):
      pass
  with opened(Part()), pytest.raises(UsageError, match='another process'), opened(Part(0, 2)):
    pass


@pytest.mark.parametrize('num, size, count', [(46, 4, 3), (3, 4, 5), (2000, 160, 8), (7, 1, 7)])
def test_parts_cover_a_job_in_whole_batches(num, size, count):
  bounds = turns.bounds(num, size, count)
  assert bounds[0] == 0 and bounds[-1] == num and list(bounds) == sorted(bounds)
  assert all(bound % size == 0 for bound in bounds if bound < num)
  batches = [-(-(end - begin) // size) for begin, end in zip(bounds, bounds[1:])]
  assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize('words, match', [
    ('3/3', 'count from 0'), ('1', 'give I/N'), ('0/0', 'give I/N'), ('-1/3', 'give I/N'),
    ('a/b', 'give I/N'), ('1/3/4', 'give I/N')])
def test_words_that_name_no_part(words, match):
  with pytest.raises(UsageError, match=match):
    parts.parse(words)
