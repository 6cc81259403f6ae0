"""From a source to an endless, shuffled, resumable stream of batches (Grain)."""

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import threading
from typing import Iterator

import numpy as np

from adm_jax.data.sources import Source, UnreadableImage
from adm_jax.errors import UsageError, one_line

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Loader:
  """How images are read.

  Attributes:
    flip: mirror every other image, by chance; ADM does.
    num_threads: that decode ahead, a batch each, in each process that does. Pillow decodes large
      images in parallel; small ones (CIFAR-10's) are mostly Python, which is not.
    num_workers: processes that decode; 0: this one. Each starts as a new interpreter, in seconds.
    max_unreadable: stop when more than this share of the images cannot be decoded; each process
      and worker counts those that it meets.
  """
  flip: bool = False
  num_threads: int = 1
  num_workers: int = 0
  max_unreadable: float = 0.01

  def __post_init__(self):
    if self.num_threads < 1 or self.num_workers < 0:
      raise UsageError(f'num_threads={self.num_threads}, num_workers={self.num_workers}: give at '
                       'least 1 and 0')
    if not 0 <= self.max_unreadable <= 1:
      raise UsageError(f'max_unreadable={self.max_unreadable}: it is a share, from 0 to 1')


class Batches:
  """An endless iterator over batches; its position is the number of batches taken.

  Nothing else is in its state, so that it goes on exactly on any number of processes, workers and
  threads. Whoever has read enough closes it, which ends its workers.
  """

  def __init__(self, dataset, loader: Loader):
    """`dataset` is a `grain.MapDataset` of batches without end."""
    self._dataset, self._loader = dataset, loader
    self._taken, self._iterator = 0, None

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict:
    if self._iterator is None:
      self._iterator = _elements(self._dataset[self._taken:], self._loader)
    batch = next(self._iterator)
    self._taken += 1
    return batch

  def get_state(self) -> bytes:
    return json.dumps({'batches': self._taken}).encode()

  def set_state(self, state: bytes) -> None:
    self.close()
    self._taken = json.loads(state)['batches']

  def close(self) -> None:
    """Ends what reads ahead, when it has read what it is at; `next` would start it again."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None


def batches(source: Source, *, batch_size: int, seed: int, loader: Loader = Loader(),
            process_index: int = 0, process_count: int = 1) -> Batches:
  """An endless iterator over this process's part of every batch.

  Every epoch is a new permutation, a function of (seed, epoch) alone, and epochs follow each other
  without a gap: a batch may end one and begin the next, and no image is dropped. Crops and flips
  are a function of (seed, position in this order). So the whole batch is the same for any number of
  processes P, of which the p-th has the rows p B / P to (p + 1) B / P.

  An image that cannot be decoded is named once and counted, and the next one of the source that can
  takes its place, which keeps all others where they are.

  Args:
    source: the images.
    batch_size: B, of the whole batch, over all processes.
    seed: of the shuffles, crops and flips.
    loader: see there.
    process_index, process_count: p and P.

  Yields:
    {'image': uint8[B/P H W C], 'label': i32[B/P]}.

  Raises:
    UsageError: the source is empty, or P does not divide B; when iterated, too many unreadable
      images.
  """
  import grain  # only training needs it

  if not len(source):
    raise UsageError(f'{source} is empty: there is nothing to train on')
  if batch_size % process_count:
    raise UsageError(f'batch_size={batch_size} cannot be parted among {process_count} processes: '
                     'choose a multiple')
  rows = batch_size // process_count
  reader = Reader(source, loader.max_unreadable)

  def read(part: int, indices: np.ndarray) -> dict:
    first = (part * process_count + process_index) * rows  # its place in the whole order
    words = _random_words(seed, first, rows)
    rngs = ([np.random.Generator(np.random.Philox(key=key)) for key in words[:, 2:]]
            if reader.draws else [None] * rows)
    batch = _stacked([reader.at_or_after(int(index), rng) for index, rng in zip(indices, rngs)])
    if loader.flip:
      _mirror(batch['image'], words[:, 0] >> np.uint64(63) == 1)
    return batch

  # Numbers alone pass through Grain one by one, which costs a tenth of decoding a small image;
  # whole batches of images come out.
  dataset = (grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().batch(rows)
             [process_index::process_count].map_with_index(read))
  return Batches(dataset, loader)


def in_order(source: Source, *, batch_size: int, loader: Loader = Loader(),
             only: range | None = None) -> Iterator[dict]:
  """Every readable image once, in the source's order; the last batch may be smaller.

  Unreadable images are left out, named and counted as in `batches`; nothing is flipped. `only` are
  the places of those to read, consecutive; by default all.

  Yields:
    {'image': uint8[B H W C], 'label': i32[B], 'index': i64[B]}, with the images' places in the
    source.
  """
  import grain

  reader = Reader(source, loader.max_unreadable)

  def read(indices: np.ndarray) -> list[dict]:
    found = ((index, reader.at(int(index), None)) for index in indices)
    return [{**example, 'index': index} for index, example in found if example is not None]

  only = range(len(source)) if only is None else only
  dataset = grain.MapDataset.range(only.start, only.stop).batch(batch_size).map(read)
  waiting = []
  for examples in _elements(dataset, loader):
    waiting += examples
    if len(waiting) >= batch_size:
      yield _stacked(waiting[:batch_size])
      waiting = waiting[batch_size:]
  if waiting:
    yield _stacked(waiting)


class Reader:
  """Reads a source that may hold damaged images; names and counts them."""

  def __init__(self, source: Source, max_unreadable: float):
    self._source, self._max_unreadable = source, max_unreadable
    self._unreadable, self._latest = set(), ''
    self.draws = getattr(source, 'draws', False)

  def at(self, index: int, rng: np.random.Generator | None) -> dict | None:
    """The image at `index` and its label, or None if it cannot be decoded.

    Raises:
      UsageError: more than the allowed share cannot; each process counts its own.
    """
    if index not in self._unreadable:
      try:
        example = self._source[index] if rng is None else self._source.read(index, rng)
        # A source of a user's own may say more, which fits no batch.
        return {name: example[name] for name in ('image', 'label')}
      except UnreadableImage as error:
        self._unreadable.add(index)
        _log.warning('skipped an unreadable image, %d of %d so far: %s', len(self._unreadable),
                     len(self._source), error)
        self._latest = one_line(error)
    count, total = len(self._unreadable), len(self._source)
    if count == total or count > self._max_unreadable * total:
      raise UsageError(
          f'{count} of the {total} images of {self._source.name} cannot be read, the last is '
          f'{self._latest}: replace them, or raise '
          f'--config.loader.max_unreadable={self._max_unreadable:g}')
    return None

  def at_or_after(self, index: int, rng: np.random.Generator | None) -> dict:
    """The first readable image from `index` on, going round at the end."""
    example = self.at(index, rng)
    while example is None:
      index = (index + 1) % len(self._source)
      example = self.at(index, rng)
    return example


def _random_words(seed: int, first: int, count: int) -> np.ndarray:
  """u64[count 4]: those of position i are a function of (seed, i) alone.

  A counter-based generator makes four words per count, so that the words of neighbors lie in a row.
  """
  return np.random.Philox(key=seed, counter=first).random_raw(4 * count).reshape(count, 4)


def _stacked(examples: list[dict]) -> dict:
  return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _mirror(images: np.ndarray, chosen: np.ndarray) -> None:
  """Mirrors the chosen of uint8[B H W C], in place."""
  pixels = images.view(f'V{images.shape[-1]}')[..., 0]  # one item each: half the time
  for i in np.flatnonzero(chosen):
    pixels[i] = pixels[i, :, ::-1]


def _elements(dataset, loader: Loader) -> Iterator:
  """The elements of a `grain.MapDataset` in order, read ahead."""
  import grain

  options = grain.ReadOptions(num_threads=loader.num_threads,
                              prefetch_buffer_size=max(4, loader.num_threads))
  iterated = dataset.to_iter_dataset(options)
  if loader.num_workers:
    from absl import flags
    if not flags.FLAGS.is_parsed():  # which Grain's workers insist on
      flags.FLAGS.mark_as_parsed()
    iterated = iterated.mp_prefetch(grain.MultiprocessingOptions(
        num_workers=loader.num_workers, per_worker_buffer_size=4), _end_with_parent)
  try:
    # Grain closes its workers by itself only when Python finds the iterator to be garbage.
    with contextlib.closing(iter(iterated)) as iterator:
      yield from iterator
  except UsageError:
    raise
  except Exception as error:
    # A worker's error arrives as the text of its traceback.
    mistake = _usage_error_in(str(error))
    if mistake is None:
      raise
    raise UsageError(mistake) from error


def _end_with_parent(worker: int, num_workers: int) -> None:
  """Has this worker process end when its parent does, however that ends, and not before.

  The kernel could see to it (PR_SET_PDEATHSIG), but takes the thread that started a process for its
  parent: Grain's threads end first when it closes, and a worker that is killed while it hands over
  a batch leaves its reader waiting.
  """
  del worker, num_workers
  # They reach whole groups of processes: the parent decides what they mean.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)

  def watch():
    multiprocessing.parent_process().join()  # at once, if it is gone already
    os._exit(1)
  threading.Thread(target=watch, daemon=True).start()


def _usage_error_in(text: str) -> str | None:
  """The message of a UsageError in the text of a traceback."""
  found = [line for line in text.splitlines() if line.startswith('adm_jax.errors.UsageError: ')]
  return found[-1].partition(': ')[2] if found else None
