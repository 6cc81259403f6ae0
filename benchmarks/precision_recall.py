"""Precision and recall of 50,000 samples against 10,000 images, beside NumPy, with their memory.

  python benchmarks/precision_recall.py

NumPy's are blocks of 10,000 x 10,000 and np.partition, as the published evaluator does it. On a
machine that is busy with other things, processor time says more than the wall clock.
"""

import argparse
import os
import threading
import time

import numpy as np

from adm_jax.evaluation.precision_recall import precision_recall

BLOCK = 10_000


def numpy_precision_recall(reference: np.ndarray, samples: np.ndarray, k: int = 3):
  """(precision, recall), straight from the definition."""
  def distances(u, v):
    return np.maximum((u * u).sum(1)[:, None] - 2 * (u @ v.T) + (v * v).sum(1)[None], 0)

  def blocks(x):
    return [slice(i, i + BLOCK) for i in range(0, len(x), BLOCK)]

  def radii(x):
    rows = (np.concatenate([distances(x[i], x[j]) for j in blocks(x)], axis=1) for i in blocks(x))
    return np.concatenate([np.partition(row, k, axis=1)[:, k] for row in rows])

  radii = [radii(x) for x in (reference, samples)]
  recalled, precise = (np.zeros(len(x), bool) for x in (reference, samples))
  for i in blocks(reference):
    for j in blocks(samples):
      distance = distances(reference[i], samples[j])
      precise[j] |= (distance <= radii[0][i][:, None]).any(axis=0)
      recalled[i] |= (distance <= radii[1][j][None]).any(axis=1)
  return precise.mean(), recalled.mean()


def resident() -> int:
  """Bytes of this process in memory."""
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def measured(function, *arguments):
  """(its result, seconds, processor seconds, bytes above what was there before)."""
  before, done = resident(), threading.Event()
  peak = [before]

  def watch():
    while not done.wait(0.05):
      peak[0] = max(peak[0], resident())
  watcher = threading.Thread(target=watch)
  watcher.start()
  wall, processor = time.monotonic(), time.process_time()
  result = function(*arguments)
  times = time.monotonic() - wall, time.process_time() - processor
  done.set()
  watcher.join()
  return result, *times, peak[0] - before


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--samples', type=int, default=50_000)
  parser.add_argument('--reference', type=int, default=10_000)
  parser.add_argument('--features', type=int, default=2048)
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  mixing = rng.standard_normal((64, arguments.features), dtype=np.float32) / 8
  reference, samples = (
      np.abs(rng.standard_normal((n, 64), dtype=np.float32) @ mixing + shift)
      for n, shift in ((arguments.reference, 0.3), (arguments.samples, 0.33)))
  for name, function in (('adm_jax', precision_recall), ('NumPy', numpy_precision_recall)):
    (precision, recall), wall, processor, memory = measured(function, reference, samples)
    print(f'{name:<8} precision {precision:.4f}  recall {recall:.4f}  {wall:7.1f} s  '
          f'{processor:7.1f} s of processor  {memory / 2**30:.2f} GiB above the features',
          flush=True)


if __name__ == '__main__':
  main()
