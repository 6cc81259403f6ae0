"""How guidance trades variety for fidelity: one model at many scales (figure 4 of the ADM paper).

    kinds = (classifier_free((1, 2, 4)), by_classifier('runs/classifier', (0, 1, 4)))
    found = run(Sweep('fashion', kinds, 'fashion-judge', fashion_mnist('test')), 'runs/sweep')

OUT/points/KIND_SCALE holds the samples of a point, OUT/points/KIND_SCALE.json its measures; both
are made once. Everything is seen with the features of a judge that was trained on real images
alone: its distances are not FID.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any, Callable, Iterator, Mapping

import numpy as np

from adm_jax.data.npz_file import NpzFile
from adm_jax.data.sources import ArraySource, Source, example
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet, neighbors
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.inception import Features
from adm_jax.evaluation.precision_recall import precision_recall
from adm_jax.evaluation.report import agreement
from adm_jax.io import digests, json_files, progress
from adm_jax.io.files import written_whole
from adm_jax.networks import check_source
from adm_jax.sampling import pipeline, shards
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree, Distilled, Guidance
from adm_jax.sampling.jobs import Made, SamplingJob
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

_LEAST = 4  # images: precision and recall ask for 3 neighbors
_COMPARED = 100  # samples, and as many real images, of which the nearest training images are sought
NEAREST = 4  # of each
_BATCH = 256  # of the judge


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
  """A kind of guidance, at some scales.

  Attributes:
    name: in tables and in names of files.
    guidance: scale -> what guides. All scales make one program, but for a scale of none.
    scales: from weak to strong.
    none: the scale that is no guidance.
  """
  name: str
  guidance: Callable[[float], tuple[Guidance, ...]]
  scales: tuple[float, ...]
  none: float = 0.0

  def __post_init__(self):
    names = [self.point(scale) for scale in self.scales]
    if not names or len(set(names)) < len(names):
      raise UsageError(f'{self.name}: the scales {", ".join(map(str, self.scales)) or "are none"}: '
                       'give each once')

  def point(self, scale: float) -> str:
    """The name of a point's folder."""
    return f'{self.name}_{scale:g}'


def classifier_free(scales: tuple[float, ...]) -> Kind:
  """Of a model that was trained with label dropout; a scale of 1 is none."""
  return Kind('classifier-free', lambda scale: (ClassifierFree(scale),), scales, none=1.0)


def by_classifier(classifier: str | Trained, scales: tuple[float, ...],
                  weights: str | None = None) -> Kind:
  """By a classifier's gradient; a scale of 0 is none."""
  return Kind('classifier', lambda scale: (ByClassifier(classifier, scale, weights=weights),),
              scales)


def unconditional_by_classifier(classifier: str | Trained, scales: tuple[float, ...],
                                weights: str | None = None) -> Kind:
  """The same, of a model with a null label that is told no class: the classifier alone says it."""
  return Kind('unconditional+classifier', lambda scale: (
      ClassifierFree(0.0), ByClassifier(classifier, scale, weights=weights)), scales)


def distilled(scales: tuple[float, ...]) -> Kind:
  """Of a student: the scale is what it is told."""
  return Kind('distilled', lambda scale: (Distilled(scale),), scales)


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
  """What is to be measured.

  Attributes:
    model: what makes images, as for `pipeline.load`.
    kinds: of guidance.
    judge: a classifier of real, clean images, by its folder or name.
    reference: real images that neither the model nor the judge was trained on, with labels.
    training: those that the model was trained on, or None: then nothing is said of copies, and of
      what distance real images have.
    num: samples per point; their classes take turns.
    seed: of their noise, the same at each point.
    batch_size: sampled at once, over all devices; None: as many as fit well.
    options: other arguments of `pipeline.load`: steps, spacing, solver, weights, dtype, fsdp.
  """
  model: str | pathlib.Path | Trained
  kinds: tuple[Kind, ...]
  judge: str
  reference: Source
  training: Source | None = None
  num: int = 2000
  seed: int = 0
  batch_size: int | None = None
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.num < _LEAST:
      raise UsageError(f'num={self.num}: give at least {_LEAST}, and thousands for numbers that '
                       'mean something')
    if not self.kinds:
      raise UsageError('a sweep of no kind of guidance: give scales of one')


@dataclasses.dataclass(frozen=True)
class Measures:
  """What is said of one set of images, by the judge.

  Attributes:
    num: how many they are.
    agreement: the share to which the judge gives the class that was asked for.
    frechet_distance: to the reference, in squared units of the features.
    precision: the share that lies among the reference's images.
    recall: the share of the reference that lies among them.
  """
  num: int
  agreement: float
  frechet_distance: float
  precision: float
  recall: float


@dataclasses.dataclass(frozen=True)
class Point:
  """One scale of one kind of guidance, measured."""
  guidance: str
  scale: float
  measures: Measures


@dataclasses.dataclass(frozen=True)
class Copies:
  """How near samples, and real images that were not trained on, come to the training images.

  Attributes:
    point: which samples.
    samples: the median root mean square of the difference from the nearest training image, pixels
      in [0, 1].
    reference: likewise, of as many images of the reference.
    in_pixels: [n][k], the training images nearest to each of the first n samples.
    in_features: likewise, as the judge sees them.
  """
  point: str
  samples: float
  reference: float
  in_pixels: tuple[tuple[int, ...], ...]
  in_features: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Found:
  """All that a sweep found, and of what.

  Attributes:
    model: its name.
    steps: how its samples are made: the solver, and how many evaluations each takes.
    judge: the name of the extractor.
    judge_hash: of its weights.
    accuracy: the judge's, on the reference.
    reference: the name of the images.
    reference_count: how many.
    points: the sweep.
    training: of training images in place of samples: as many as a point has, and as many as the
      reference; () where they were not given.
    copies: of the point with the smallest distance; None where they were not given.
  """
  model: str
  steps: str
  judge: str
  judge_hash: str
  accuracy: float
  reference: str
  reference_count: int
  points: tuple[Point, ...]
  training: tuple[Measures, ...] = ()
  copies: Copies | None = None

  @property
  def nearest(self) -> Point:
    """The point whose samples are the nearest to the reference."""
    return min(self.points, key=lambda point: point.measures.frechet_distance)


def as_json(found: Found) -> str:
  """A text that `from_json` reads."""
  return json.dumps(dataclasses.asdict(found), indent=1) + '\n'


def from_json(text: str) -> Found:
  """What `as_json` wrote."""
  plain = json_files.parse(text)
  points = tuple(Point(**{**point, 'measures': Measures(**point['measures'])})
                 for point in plain['points'])
  training = tuple(Measures(**measures) for measures in plain['training'])
  return Found(**{**plain, 'points': points, 'training': training,
                  'copies': plain['copies'] and _copies(plain['copies'])})


def run(sweep: Sweep, out: str | pathlib.Path, *, bar: Callable = progress.bar,
        told: Callable[[Point], None] = lambda point: None) -> Found:
  """Samples and measures what is missing in `out`; what is there stays as it is.

  Args:
    sweep: what to measure.
    out: its folder, new, or of the same sweep with more or fewer scales.
    bar: shows progress, see `progress.bar`.
    told: told(point) after each.

  Raises:
    UsageError: things that do not go together, or a folder of other samples.
  """
  out = pathlib.Path(out).absolute()
  for kind in sweep.kinds:
    for scale in kind.scales:
      shards.check_folder(out / 'points' / kind.point(scale))
  judge = pretrained.load(sweep.judge)
  extractor = features.of_classifier(judge, sweep.judge)
  for source in (sweep.reference, sweep.training):
    if source is not None:
      check_source(judge.network, source)
      _check_names(judge, sweep.judge, source)
      if len(source) < _LEAST:
        raise UsageError(f'{source.name} has {len(source)} images: give at least {_LEAST}')
  content = digests.short(extractor.hash, outline(sweep.reference))

  @functools.cache
  def real():
    return _features(extractor, sweep.reference, bar, 'reference')

  def measured(path, images, labels, checksum):
    def measure():
      seen = _features(extractor, images, bar, path.stem)
      return dataclasses.asdict(_measures(seen, labels, real().pool))
    return Measures(**_once(path, digests.short(content, checksum), measure))

  points, samples, steps = [], {}, ''
  for kind in sweep.kinds:
    for scale, adm in _pipelines(sweep, kind):
      _check_judge(judge, sweep.judge, adm)
      (out / 'points').mkdir(parents=True, exist_ok=True)
      steps = f'{adm.description["solver"]}, {adm.sampler.num_evaluations} evaluations each'
      name = kind.point(scale)
      made = samples[name] = SamplingJob(adm, num=sweep.num, seed=sweep.seed, class_order='turn',
                                         batch_size=sweep.batch_size).write(out / 'points' / name)
      points.append(Point(kind.name, float(scale), measured(
          out / 'points' / f'{name}.json', NpzFile(made.path), made.labels, made.checksum)))
      told(points[-1])
  accuracy = _once(out / 'judge.json', content, lambda: {
      'accuracy': agreement(real().logits, _labels(sweep.reference))})['accuracy']
  found = Found(_name(sweep.model), steps, extractor.name, extractor.hash, accuracy,
                sweep.reference.name, len(sweep.reference), tuple(points))
  if sweep.training is not None:
    counts = {min(count, len(sweep.training)) for count in (sweep.num, len(sweep.reference))}
    sets = [spread(sweep.training, count) for count in sorted(counts)]
    training = tuple(measured(out / f'training_{len(images)}.json', images, images.labels,
                              outline(images)) for images in sets)
    name = _point_name(sweep, found.nearest)
    found = dataclasses.replace(found, training=training, copies=_copies(_once(
        out / 'neighbors.json', digests.short(content, samples[name].checksum,
                                              outline(sweep.training)),
        lambda: _find_copies(name, samples[name], sweep, extractor, bar))))
  with written_whole(out / 'sweep.json') as part:
    part.write_text(as_json(found))
  return found


def spread(source: Source, count: int) -> ArraySource:
  """So many images of a source, or all if it has fewer, evenly spaced, with their labels."""
  count = min(count, len(source))
  chosen = [example(source, int(i)) for i in np.arange(count) * len(source) // count]
  return ArraySource(source.name, np.stack([each['image'] for each in chosen]),
                     np.array([each['label'] for each in chosen], np.int32), source.class_names)


def _pipelines(sweep: Sweep, kind: Kind) -> Iterator[tuple[float, pipeline.Pipeline]]:
  """(scale, a pipeline with it) for each scale of a kind; the networks are loaded once."""
  adm = None
  for scale in kind.scales:
    guidance = kind.guidance(scale)
    adm = (pipeline.load(sweep.model, guidance=guidance, **sweep.options) if adm is None
           else adm.with_guidance(guidance))
    if adm.low_res_shape is not None:
      raise UsageError(f'{_name(sweep.model)} enlarges images: give a model that makes them')
    yield scale, adm


def _check_names(judge: Trained, name: str, source: Source) -> None:
  """Raises UsageError if the judge's classes have other names than a source's, where both have any.

  Those of an `.npz` are numbers alone.
  """
  ours, theirs = tuple(judge.class_names or ()), tuple(source.class_names)
  are_names = all(names != tuple(map(str, range(len(names)))) for names in (ours, theirs))
  if are_names and ours[:len(theirs)] != theirs:
    raise UsageError(f'{source.name} has other classes than the judge {name}, or another order of '
                     'them: give images of the same')


def _check_judge(judge: Trained, name: str, adm: pipeline.Pipeline) -> None:
  """Raises UsageError unless the judge knows the images and classes that a model makes."""
  network = judge.network
  if network.image_shape != adm.sampler.shape or network.num_classes != adm.num_classes:
    raise UsageError(f'the judge {name} is for images of {network.image_shape} (H, W, C) in '
                     f'{network.num_classes} classes, the model makes {adm.sampler.shape} in '
                     f'{adm.num_classes}: give a judge of the same')
  ours = judge.class_names and tuple(judge.class_names)
  theirs = adm.class_names and tuple(names[0] for names in adm.class_names)
  if ours and theirs and ours != theirs:
    raise UsageError(f'the judge {name} has other classes than the model, or another order of '
                     'them: give one that was trained on the same')


def _features(extractor: Extractor, images: Source, bar: Callable, title: str) -> Features:
  with bar(len(images), title) as advance:
    return features.extract(extractor, images, batch_size=_BATCH, advance=advance)


def _measures(seen: Features, labels: np.ndarray, real: np.ndarray) -> Measures:
  """Of images with features and logits `seen`, asked to be of classes `labels` i[N]."""
  close = precision_recall(real, seen.pool)
  return Measures(len(seen.pool), agreement(seen.logits, labels), frechet.frechet_distance(
      frechet.moments(real), frechet.moments(seen.pool)), *close)


def _labels(source: Source) -> np.ndarray:
  labels = getattr(source, 'labels', None)  # else each image has to be read for it
  return np.asarray([example(source, i)['label'] for i in range(len(source))]
                    if labels is None else labels)


def _find_copies(name: str, made: Made, sweep: Sweep, extractor: Extractor,
                 bar: Callable) -> dict[str, Any]:
  """`Copies` of a point's samples, as plain data."""
  # The first samples are of all classes in turn; a real data set may be sorted by class.
  queries = np.asarray(made.images[:_COMPARED]), spread(sweep.reference, _COMPARED).images
  images = np.concatenate(queries)
  seen = features.extract(extractor, ArraySource('images', images), batch_size=_BATCH)
  with bar(len(sweep.training), 'nearest') as advance:
    in_pixels, in_features = neighbors.in_both(images, seen.pool, sweep.training, extractor,
                                               k=NEAREST, batch_size=_BATCH, advance=advance)
  apart = np.sqrt(in_pixels.squared[:, 0])
  count = len(queries[0])
  return dataclasses.asdict(Copies(
      name, float(np.median(apart[:count])), float(np.median(apart[count:])),
      in_pixels.index[:count].tolist(), in_features.index[:count].tolist()))


def _copies(plain: dict[str, Any]) -> Copies:
  return Copies(**{**plain, **{name: tuple(map(tuple, plain[name]))
                               for name in ('in_pixels', 'in_features')}})


def _once(path: pathlib.Path, content: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What `make` returns; it is stored in a file, and made once for each content."""
  if path.exists():
    stored = json_files.read(path)
    if isinstance(stored, dict) and stored.pop('content', None) == content:
      return stored
  made = make()
  with written_whole(path) as part:
    part.write_text(json.dumps({'content': content, **made}, indent=1))
  return made


def outline(source: Source) -> str:
  """Tells data sets apart; reads at most 64 images."""
  some = spread(source, 64)
  return digests.short(f'{source.name} {len(source)} {source.image_shape}', some.images.tobytes(),
                       some.labels.tobytes())


def _name(model: str | pathlib.Path | Trained) -> str:
  return 'weights in memory' if isinstance(model, Trained) else str(model)


def _point_name(sweep: Sweep, point: Point) -> str:
  kind = next(kind for kind in sweep.kinds if kind.name == point.guidance)
  return kind.point(point.scale)
