"""Reference statistics in files: the moments of a data set's features, and some of its images.

The layout is the published one: `mu`, `sigma` of the pool features, `mu_s`, `sigma_s` of the
spatial ones, `arr_0` uint8[N H W C]. Ours add `count` and `extractor`, "NAME HASH", which other
readers pass over.
"""

import dataclasses
import itertools
import pathlib
from typing import Callable, Iterator

import numpy as np

from adm_jax.data.sources import Source
from adm_jax.data.streams import num_batches
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet
from adm_jax.evaluation.frechet import Moments
from adm_jax.evaluation.inception import Features
from adm_jax.io import npz
from adm_jax.io.meetings import ALONE, Meeting
from adm_jax.io.parts import share

_SECTIONS = 64  # of a data set, which processes share; more would only wait


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Moments of a data set's features.

  Attributes:
    pool: of the pool features.
    spatial: of the spatial ones, where the extractor has them.
    count: of how many images, if known.
    extractor: "NAME HASH"; '' in published files, which are Inception's.
  """
  pool: Moments
  spatial: Moments | None = None
  count: int | None = None
  extractor: str = ''


def signature(extractor: features.Extractor) -> str:
  """What a file says of the extractor that made it."""
  return f'{extractor.name} {extractor.hash}'


def read(path: pathlib.Path) -> Statistics | None:
  """The statistics in an `.npz`, or None if it holds images alone.

  Raises:
    UsageError: it is damaged, or its moments are no moments.
  """
  keys = set(npz.names(path))
  if not keys & {'mu', 'sigma', 'mu_s', 'sigma_s'}:
    return None
  count = int(_single(path, 'count', 'iu')) if 'count' in keys else None
  extractor = str(_single(path, 'extractor', 'U')) if 'extractor' in keys else ''
  spatial = _moments(path, 'mu_s', 'sigma_s') if 'mu_s' in keys else None
  return Statistics(_moments(path, 'mu', 'sigma'), spatial, count, extractor)


def _single(path: pathlib.Path, name: str, kinds: str) -> np.ndarray:
  found = npz.read(path, name)
  if found.shape or found.dtype.kind not in kinds:
    raise UsageError(f'{path}: {name} is {found.dtype}{list(found.shape)}: make it again')
  return found


def _moments(path: pathlib.Path, mean: str, covariance: str) -> Moments:
  found = Moments(npz.read(path, mean), npz.read(path, covariance))
  if found.mean.ndim != 1 or found.covariance.shape != 2 * found.mean.shape:
    raise UsageError(f'{path}: {mean} is {found.mean.shape} and {covariance} '
                     f'{found.covariance.shape}: give (D,) and (D, D)')
  for moment in found:
    if moment.dtype.kind not in 'fiu':
      raise UsageError(f'{path}: {mean} or {covariance} holds {moment.dtype}: moments are numbers')
  if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
    raise UsageError(f'{path}: {mean} or {covariance} holds NaN or infinity: make it again')
  return found


def write(path: pathlib.Path, statistics: Statistics) -> None:
  """Writes statistics without images."""
  npz.write(path, _arrays(statistics))


def measure(path: pathlib.Path, extractor: features.Extractor, images: Source, *,
            keep: int = 10_000, batch_size: int = 64,
            advance: Callable[[int], None] = lambda count: None,
            meeting: Meeting = ALONE) -> Statistics | None:
  """Writes the statistics file of a data set, in one pass; memory does not grow with it.

  Args:
    path: the `.npz` to write.
    extractor: what measures.
    images: the data set.
    keep: how many images, evenly spaced, the file holds, for precision and recall; 0: it has no
      `arr_0`.
    batch_size: of the extractor.
    advance: advance(count) after each batch.
    meeting: of the processes that share the work; the first writes. The file does not depend on
      how many there are.

  Returns:
    The statistics; None in processes beside the first.

  Raises:
    UsageError: fewer than 2 images, or features that are not finite.
  """
  if len(images) < 2:
    raise UsageError(f'{images.name} has {len(images)} image: statistics need at least 2')
  # Evenly spaced: image i of the data set is kept if it is one of these.
  kept = np.arange(min(keep, len(images))) * len(images) // max(1, min(keep, len(images)))
  size = features.size_of_batches(batch_size)
  batches = num_batches(images, size)
  # Sums are joined in one order: within sections, which lie where they lie, and then of sections.
  sections = [share(batches, i, min(_SECTIONS, batches)) for i in range(min(_SECTIONS, batches))]

  # One stream through all sections of this process, which follow each other: a stream of each would
  # read from the beginning.
  own = meeting.part.of(len(sections))
  before, behind = (sum(map(len, sections[:i])) for i in (own.start, own.stop))
  stream = features.extract_batches(extractor, images, batch_size=batch_size,
                                    only=range(before, behind), advance=advance)

  def section(only):
    return _section(itertools.islice(stream, len(only)), kept, only.start * size)
  found = meeting.in_order('section', section, sections)
  if not meeting.part.first:
    for _ in found:  # it gives, and gets nothing
      pass
    return None
  sums = {}

  def kept_images():
    for arrays in found:
      yield arrays['kept']
      for kind in ('pool', 'spatial'):
        if f'{kind}_mean' in arrays:
          part = frechet.Sums(int(arrays['count']), arrays[f'{kind}_mean'],
                              arrays[f'{kind}_scatter'])
          sums[kind] = frechet.join(sums[kind], part) if kind in sums else part

  def arrays():
    if len(kept):
      yield 'arr_0', npz.Pieces((len(kept), *images.image_shape), np.dtype(np.uint8), kept_images())
    else:  # an array of no images would be refused; the sums are made all the same
      for _ in kept_images():
        pass
    measured = {kind: frechet.moments_of([total]) for kind, total in sums.items()}
    yield from _arrays(Statistics(**measured, count=len(images), extractor=signature(extractor)))

  npz.write(path, arrays())
  return read(path)


def _section(batches: Iterator[tuple[np.ndarray, Features]], kept: np.ndarray,
             start: int) -> dict[str, np.ndarray]:
  """The sums of some batches, and those of their images that are kept; `start` is their first."""
  count, sums, chosen = 0, {}, []
  for batch, found in batches:
    for kind, values in (('pool', found.pool), ('spatial', found.spatial)):
      if values is not None:
        part = frechet.sums(values)
        sums[kind] = frechet.join(sums[kind], part) if kind in sums else part
    chosen.append(batch[kept[(kept >= start) & (kept < start + len(batch))] - start])
    start, count = start + len(batch), count + len(batch)
  return {'kept': np.concatenate(chosen), 'count': np.array(count),
          **{f'{kind}_mean': part.mean for kind, part in sums.items()},
          **{f'{kind}_scatter': part.scatter for kind, part in sums.items()}}


def _arrays(statistics: Statistics) -> Iterator[tuple[str, np.ndarray]]:
  yield 'mu', statistics.pool.mean
  yield 'sigma', statistics.pool.covariance
  if statistics.spatial is not None:
    yield 'mu_s', statistics.spatial.mean
    yield 'sigma_s', statistics.spatial.covariance
  if statistics.count is not None:
    yield 'count', np.asarray(statistics.count, np.int64)
  if statistics.extractor:
    yield 'extractor', np.asarray(statistics.extractor)
