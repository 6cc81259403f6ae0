"""From a source to an endless, shuffled, resumable stream of batches (Grain)."""

from typing import Iterator

from adm_jax.data.sources import Source
from adm_jax.errors import UsageError


def batches(source: Source, *, batch_size: int, seed: int, num_threads: int = 1) -> Iterator[dict]:
  """An endless iterator over batches.

  Every epoch is a new permutation, a function of (seed, epoch) alone, and epochs follow each other
  without a gap: a batch may end one and begin the next, and no image is dropped. The iterator's
  state (`get_state`, `set_state`) is its position, so a restored one goes on exactly.

  Args:
    source: the images.
    batch_size: of the whole batch.
    seed: of the shuffles.
    num_threads: that read ahead.

  Yields:
    {'image': uint8[B H W C], 'label': i32[B]}.
  """
  import grain  # only training needs it

  if not len(source):
    raise UsageError(f'{source} is empty: there is nothing to train on')
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().batch(batch_size)
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4)
  return iter(dataset.to_iter_dataset(options))
