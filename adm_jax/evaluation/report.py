"""What is said of a set of samples: every number, of what, against what, measured with what."""

import dataclasses
import pathlib
from typing import Any, Callable

import numpy as np

from adm_jax.data.npz_file import NpzFile
from adm_jax.data.open import open_source
from adm_jax.data.sources import Source
from adm_jax.errors import UsageError, printable
from adm_jax.evaluation import frechet, reference_statistics
from adm_jax.evaluation.features import Extractor, extract_together
from adm_jax.evaluation.inception import Features
from adm_jax.evaluation.inception_score import inception_score
from adm_jax.evaluation.kernel_distance import kernel_distance
from adm_jax.evaluation.precision_recall import precision_recall
from adm_jax.evaluation.reference_statistics import Statistics
from adm_jax.io import npz
from adm_jax.io.meetings import ALONE, Meeting

FULL = 50_000  # samples behind every published FID
LEAST = 4  # precision and recall ask for 3 neighbors, error bars for halves of 2


@dataclasses.dataclass(frozen=True)
class ImageSet:
  """One side of a comparison.

  Attributes:
    name: where it lies.
    images: its images, if it has any.
    statistics: its moments, if they come with it.
    labels: i[N], the class of each image, where that is known.
  """
  name: str
  images: Source | None
  statistics: Statistics | None = None
  labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Value:
  """One number.

  Attributes:
    key: in JSON.
    label: in text.
    value: it.
    error: its standard error by the draw of the samples, if it was estimated.
  """
  key: str
  label: str
  value: float
  error: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
  """All numbers of one set of samples.

  Attributes:
    samples: where they lie.
    n: how many.
    reference: where the real images lie.
    reference_images: how many of them met the samples one by one.
    reference_count: how many the moments are of; None if their file does not say.
    extractor: its name.
    extractor_hash: 16 hexadecimal digits.
    published: whether that is FID's own network, with the published weights.
    distances: of precision and recall, 'float32' or 'float16'.
    values: the numbers.
    notes: what a reader should know besides.
  """
  samples: str
  n: int
  reference: str
  reference_images: int
  reference_count: int | None
  extractor: str
  extractor_hash: str
  published: bool
  distances: str
  values: tuple[Value, ...]
  notes: tuple[str, ...] = ()

  @property
  def title(self) -> str:
    """One line; begins with the extractor where that is not the published Inception network."""
    other = f'With {self.extractor}, not the published Inception network: '
    count = 'unknown n' if self.reference_count is None else f'{self.reference_count:,} images'
    return (f'{"" if self.published else other}{self.samples} (n = {self.n:,}) against '
            f'{self.reference} (statistics of {count}, neighbors among {self.reference_images:,})')

  def text(self) -> str:
    """The title, the numbers as the published evaluator prints them, the extractor."""
    lines = [self.title]
    lines += [f'{value.label}: {value.value}'
              + ('' if value.error is None else f' +- {value.error:.2g}') for value in self.values]
    lines += [f'extractor: {self.extractor}, hash {self.extractor_hash}']
    return '\n'.join(map(printable, [*lines, *(f'note: {note}' for note in self.notes)]))

  def as_json(self) -> dict[str, Any]:
    """The report as plain data; `values` by key."""
    plain = dataclasses.asdict(self)
    values = {value.pop('key'): value for value in plain['values']}
    return {'title': self.title, **plain, 'values': values, 'notes': list(self.notes)}


def open_labeled(path: str | pathlib.Path) -> ImageSet:
  """As `open_set`, with the labels of an `.npz`, or of the samples in a folder of `adm sample`."""
  found, path = open_set(path), pathlib.Path(path)
  file = path / 'samples.npz' if path.is_dir() else path
  if found.images is None or file.suffix != '.npz' or not file.is_file():
    return found
  labeled = NpzFile(file)
  return dataclasses.replace(found, labels=labeled.labels if labeled.class_names else None)


def open_set(path: str | pathlib.Path) -> ImageSet:
  """The images at `path`, and the statistics in it if it is an `.npz` that has them.

  Raises:
    UsageError: there is neither.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UsageError(f'there is no file or folder {path}')
  if not path.is_file() or path.suffix == '.zip':
    return ImageSet(str(path), _images(path))
  found = reference_statistics.read(path)
  if found is not None and 'arr_0' not in npz.names(path):
    return ImageSet(str(path), None, found)
  return ImageSet(str(path), _images(path), found)


def _images(path: pathlib.Path) -> Source:
  """The images at `path`, gray or in color."""
  source = open_source(path, crop=None, labels=None, channels=None)
  if source.image_shape[-1] not in (1, 3):
    raise UsageError(f'{path}: its images have {source.image_shape[-1]} channels: give 1 or 3')
  return source


def check(reference: ImageSet, samples: ImageSet) -> None:
  """Raises UsageError unless the two can be compared by any extractor; reads no pixels."""
  if samples.images is None:
    raise UsageError(f'{samples.name} has no arr_0: give the images of the samples, uint8 '
                     '(N, H, W, C)')
  for side in (reference, samples):
    if side.images is not None and len(side.images) < LEAST:
      raise UsageError(f'{side.name} has {len(side.images)} image'
                       f'{"" if len(side.images) == 1 else "s"}: give at least {LEAST}, and '
                       f'{FULL:,} for numbers like the published ones')
  if reference.statistics is not None and samples.statistics is not None:
    made = [side.statistics.extractor for side in (reference, samples)]
    if made[0] != made[1] and all(made):
      raise UsageError(f'{reference.name} was measured with {made[0]}, {samples.name} with '
                       f'{made[1]}: measure both with one extractor')


def evaluate(reference: ImageSet, samples: ImageSet, extractor: Extractor, *, bar: Callable,
             distances: str = 'float32', batch_size: int = 64,
             meeting: Meeting = ALONE) -> Report | None:
  """Measures samples against a reference.

  Args:
    reference: real images, their statistics, or both.
    samples: images.
    extractor: what both are seen with.
    bar: bar(total, title) is a context that gives advance(count).
    distances: of precision and recall; see `precision_recall`.
    batch_size: of the extractor.
    meeting: of the processes that share the work; numbers do not depend on how many there are.

  Returns:
    The report; None in processes beside the first.

  Raises:
    UsageError: they cannot be compared, or a feature is not finite. No number is given then.
  """
  check(reference, samples)
  _check_labels(samples, extractor)
  known = {side.name: usable(side, extractor) for side in (reference, samples)}

  def features_of(side, title):
    with bar(len(side.images), title) as advance:
      return extract_together(extractor, side.images, meeting, title, batch_size=batch_size,
                              advance=lambda count: advance(count * meeting.part.count))
  found = features_of(samples, 'samples')
  real = None if reference.images is None else features_of(reference, 'reference')
  _check_widths(known, found)
  with bar(1 if real is None else 3, 'distances') as advance:
    if real is not None:  # which all processes share
      close = precision_recall(real.pool, found.pool, distances=distances, meeting=meeting)
      advance(1)
      kernel = kernel_distance(real.pool, found.pool, meeting=meeting)
      advance(1)
    if not meeting.part.first:
      return None
    values = _distances(known[reference.name], real, known[samples.name], found, extractor)
    advance(1)
    if real is not None:
      values += [Value('precision', 'Precision', close.precision),
                 Value('recall', 'Recall', close.recall),
                 Value('kid' if extractor.published else 'kernel_distance',
                       'KID' if extractor.published else 'Kernel distance', *kernel)]
  if samples.labels is not None and extractor.num_classes is not None:
    values.append(Value('agreement', 'Agreement with labels',
                        agreement(found.logits, samples.labels)))
  notes = [] if len(found.pool) >= FULL else [
      f'distances of {len(found.pool):,} samples are larger than those of {FULL:,}, and do not '
      'compare with them']
  if real is None:
    notes.append(f'{reference.name} holds no images: no precision, recall and kernel distance')
  stated = known[reference.name]
  return Report(
      samples.name, len(found.pool), reference.name, 0 if real is None else len(real.pool),
      len(real.pool) if stated is None else stated.count, extractor.name, extractor.hash,
      extractor.published, distances, tuple(values), tuple(notes))


def agreement(logits: np.ndarray, labels: np.ndarray) -> float:
  """The share of images, of logits f32[N K], whose largest logit is that of their label i[N]."""
  return float((logits.argmax(axis=1) == labels).mean())


def _check_labels(samples: ImageSet, extractor: Extractor) -> None:
  """Raises UsageError if the samples are of classes that the extractor does not know."""
  known, labels = extractor.num_classes, samples.labels
  if known is not None and labels is not None and labels.max(initial=0) >= known:
    raise UsageError(f'{samples.name} has labels up to {labels.max()}, {extractor.name} knows '
                     f'{known} classes: give a classifier of the same')


def usable(side: ImageSet, extractor: Extractor) -> Statistics | None:
  """The statistics of a side, if they are of this extractor.

  Raises:
    UsageError: they are of another, and it has no images to measure with this one.
  """
  if side.statistics is None:
    return None
  made = side.statistics.extractor
  if made == reference_statistics.signature(extractor) or (not made and extractor.published):
    return side.statistics
  if made or side.images is None:
    raise UsageError(f'{side.name} was measured with {made or "Inception"}, not with '
                     f'{reference_statistics.signature(extractor)}: measure it again (adm '
                     'reference), or choose that extractor')
  return None  # published statistics, but its images can be seen with this extractor too


def _check_widths(known: dict[str, Statistics | None], found: Features) -> None:
  for name, stated in known.items():
    if stated is not None and stated.pool.mean.shape != found.pool.shape[1:]:
      raise UsageError(f'{name} has statistics of {len(stated.pool.mean)} features, the extractor '
                       f'gives {found.pool.shape[1]}: measure it again (adm reference)')


def _distances(reference: Statistics | None, real: Features | None, samples: Statistics | None,
               found: Features, extractor: Extractor) -> list[Value]:
  """The Inception Score and the Frechet distances, in the order of the published evaluator."""
  n = len(found.pool)
  small = n < FULL
  values = []
  if found.logits is not None:
    key, label = (('inception_score', 'Inception Score') if extractor.published else
                  ('class_score', 'Class score'))
    values.append(Value(key, label, inception_score(found.logits)))
  for kind, key, label in (('pool', 'fid', 'FID'), ('spatial', 'sfid', 'sFID')):
    vectors = getattr(found, kind)
    stated = [side and getattr(side, kind) for side in (reference, samples)]
    if vectors is None or (stated[0] is None and real is None):
      continue
    distance = frechet.distance_to(stated[0] or frechet.moments(getattr(real, kind)))
    value = distance(stated[1] or frechet.moments(vectors))
    error = frechet.standard_error(vectors, distance) if small else None
    if not extractor.published:
      key, label = (('frechet_distance', 'Frechet distance') if kind == 'pool' else
                    ('spatial_frechet_distance', 'Spatial Frechet distance'))
    values.append(Value(key, f'{label}-{n}' if small and extractor.published else label, value,
                        error))
  return values
