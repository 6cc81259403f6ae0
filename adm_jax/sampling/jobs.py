"""Any number of images in a folder: what `adm sample` does, for Python.

    SamplingJob(load('imagenet64'), num=50_000, seed=0).write('runs/imagenet64')

Images are written as they are made; the same job goes on where it was stopped, and ends with the
same bytes. FOLDER/samples.npz has the published layout: arr_0, uint8 N H W C, and arr_1, labels.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any, Callable, Iterable, NamedTuple, Sequence

import numpy as np

from adm_jax.data import class_names as class_names_lib
from adm_jax.devices import hosts, sharding
from adm_jax.errors import UsageError
from adm_jax.io import files, heartbeats, npz, progress
from adm_jax.io.parts import Part
from adm_jax.sampling import lockstep, shards
from adm_jax.sampling import turns as turns_lib
from adm_jax.sampling.initial_states import InitialStates
from adm_jax.sampling.pipeline import (
  Pipeline,
  check_num,
  check_seed,
  check_small_images,
  check_small_shape,
)
from adm_jax.sampling.sampler import check_labels
from adm_jax.sampling.shards import Shards


class _Small(NamedTuple):
  """What an upsampler enlarges; `job` makes it, if one does, and may not have made all."""
  images: Any
  labels: np.ndarray | None
  path: pathlib.Path
  identity: str
  job: Shards | None = None


@dataclasses.dataclass(frozen=True)
class _Run:
  """How a job is run: see `SamplingJob.write`."""
  part: Part
  bar: Callable
  watch: Callable | None


class Made(NamedTuple):
  """Images that are in a file.

  Attributes:
    path: of the .npz.
    images: uint8[N H W C], read as they are indexed.
    labels: i64[N], or None.
    class_names: of the labels, where known.
    checksum: tells the file's contents from others.
  """
  path: pathlib.Path
  images: Any
  labels: np.ndarray | None
  class_names: class_names_lib.Names | None
  checksum: str

  def saturated(self, most: int = 256) -> float:
    """The share of values that are 0 or 255, in at most so many images, spread over all."""
    index = np.unique(np.linspace(0, len(self.images) - 1, most).astype(int))
    values = np.asarray(self.images[index])
    return float(((values == 0) | (values == 255)).mean())


@dataclasses.dataclass(frozen=True, eq=False)
class SamplingJob:
  """Any number of images of one pipeline.

  Image i depends on the seed, i, its label and what it starts from alone: not on the batch it is
  made in, on how often the job was stopped, or on the number of devices.

  Attributes:
    pipeline: what makes them.
    num: how many; None: one per class named, one per image that they start from or enlarge, or 16.
    seed: of the noise, and of labels that are drawn.
    classes: which, as numbers or as text ('207, golden retriever, 3-5'); None: all.
    class_order: 'turn', the default where classes are named, or 'drawn' uniformly.
    start: where they start; None: from fresh noise.
    base: what an upsampler enlarges: another job, whose folder is FOLDER/base, or the path of an
      .npz, of which the labels are kept.
    batch_size: over all devices; None: as many as fit well.
  """
  pipeline: Pipeline
  num: int | None = None
  seed: int = 0
  classes: str | Sequence[int] | None = None
  class_order: str | None = None
  start: InitialStates | None = None
  base: 'SamplingJob | str | pathlib.Path | None' = None
  batch_size: int | None = None

  def __post_init__(self):
    for name in ('num', 'batch_size'):
      value = getattr(self, name)
      if value is not None:
        check_num(name, value)
    check_seed(self.seed)
    if self.class_order not in (None, 'turn', 'drawn'):
      raise UsageError(f'class_order={self.class_order!r}: give turn or drawn')
    small = self.pipeline.low_res_shape
    if (self.base is None) != (small is None):
      raise UsageError('an upsampler enlarges small images, and nothing else does: '
                       + ('give a base' if self.base is None else 'leave out the base'))
    if isinstance(self.base, SamplingJob):
      check_small_shape(self.base.pipeline.sampler.shape, small)
      if self.classes is not None:
        raise UsageError('images that are enlarged have their classes: give classes to the base')
    if self.base is not None and self.start is not None:
      raise UsageError('what is enlarged starts from noise: leave out start')
    self.chosen_classes()

  def chosen_classes(self) -> list[int] | None:
    """The classes asked for; None for all, or where there are none.

    Raises:
      UsageError: a class that the model does not know, or several where all images are of one.
    """
    adm, single = self.pipeline, self.start is not None and self.start.one_class
    if self.classes is None:
      if single and adm.num_classes is not None:
        raise UsageError('the way between two images keeps to one class: name it in classes')
      return None
    if adm.num_classes is None:
      raise UsageError(f'{adm.run.name or "the model"} knows no classes: leave out classes, or '
                       'guide it by a classifier')
    found = class_names_lib.find(self.classes, adm.num_classes, adm.class_names) if isinstance(
        self.classes, str) else check_labels(self.classes, len(self.classes),
                                             adm.num_classes).tolist()
    if single and len(found) > 1:
      raise UsageError('the way between two images keeps to one class: classes names '
                       f'{len(found)}')
    return found

  def write(self, folder: str | pathlib.Path, *, part: Part = Part(),
            bar: Callable = progress.images,
            watch: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]] | None = None
            ) -> Made | None:
    """Makes what is missing of the job in `folder`.

    Args:
      folder: new, empty, or of the same job; a bucket's, 'gs://...', if it is to be.
      part: which part of the job this process makes, where others make the rest.
      bar: shows progress, see `progress.images`.
      watch: passes batches on as they come, for whoever measures the first; of a job with a base
        job, these are the base's.

    Returns:
      The images. None, of several processes, where some are not there yet, and in all but the one
      that has joined them, or is the first to find them joined.

    Raises:
      UsageError: the folder holds something else, or another process works in it; nothing is
        touched.
    """
    folder = files.folder(folder)
    shards.check_folder(folder)
    given = None if self.base is None or isinstance(self.base, SamplingJob) else self._given()
    job, mine = self._run(folder, given, _Run(part, bar, watch))
    if not mine:
      return None
    return Made(job.samples, job.images(), job.labels, self.pipeline.class_names,
                npz.checksum(files.local(job.samples)))

  def _run(self, folder: pathlib.Path, given: Made | None, run: _Run) -> tuple[Shards, bool]:
    """(the job, whether it is whole and this process is to go on with it)."""
    if isinstance(self.base, SamplingJob):
      small, _ = self.base._run(folder / shards.BASE, None, run)
      watch = dataclasses.replace(run, watch=None)
      return self._enlarge(_Small(small, small.labels, small.samples, self._base_words(
          folder, small), small), folder, watch)
    if given is not None:
      return self._enlarge(_Small(given.images, given.labels, given.path, given.checksum), folder,
                           run)
    return self._sample(folder, run)

  def _sample(self, folder, run) -> tuple[Shards, bool]:
    adm, classes = self.pipeline, self.chosen_classes()
    num = self.num or (None if self.start is None else self.start.num) or (
        len(classes) if classes is not None and not self._single else 16)
    shards.check_space(folder, num, adm.sampler.shape)
    labels = self._labels(num, classes)
    x = None if self.start is None else self.start.start(adm, num, labels, self.seed)
    description = {'classes': 'all' if classes is None else classes,
                   'class_order': self._order(classes),
                   'start': None if self.start is None else self.start.describe()}
    return self._make(folder, run, description, num, labels, labels, x=x)

  def _enlarge(self, small: _Small, folder, run) -> tuple[Shards, bool]:
    adm = self.pipeline
    if small.job is None:
      check_small_images(small.images, adm.low_res_shape)
    num = len(small.images) if self.num is None else self.num
    if num > len(small.images):
      raise UsageError(f'there are {len(small.images)} small images: num {num} is more')
    shards.check_space(folder, num, adm.sampler.shape)
    labels = kept = None if small.labels is None else small.labels[:num]
    if adm.num_classes is None:
      labels = None  # the file keeps them all the same
    elif labels is None:
      labels = kept = self._labels(num, self.chosen_classes())
    elif self.classes is not None:
      raise UsageError(f'{small.path} has labels: leave out classes')
    return self._make(folder, run, {'base': small.identity, 'start': None}, num, labels, kept,
                      small.job, low_res=small.images)

  def _make(self, folder, run, description, num, labels, kept, inputs=None,
            **given) -> tuple[Shards, bool]:
    """Makes what is missing; `labels` are for the network, `kept` for the file.

    `inputs` is the job whose images are enlarged, as far as they are there.
    """
    adm, part = self.pipeline, run.part
    labels = check_labels(labels, num, adm.num_classes)
    given = dict(labels=labels, batch_size=self.batch_size, **given)
    if not hosts.leads(adm.sampler.mesh.devices.flat):
      return self._follow(folder, num, kept, given), False
    description = {'version': shards.VERSION, **adm.description, 'seed': self.seed, 'num': num,
                   **description}
    turns = self._turns(num, part, inputs)
    with shards.open_folder(folder, description, num, adm.sampler.shape, kept, part) as job, \
        lockstep.leading(adm.sampler.mesh) as tell:
      if job.joined():
        job.finish()
        return job, part.first
      with heartbeats.Heart(folder, part) as heart:
        mine = turns_lib.complete(job, part, heart, lambda: self._make_missing(
            job, turns, heart, run, tell, given))
        return job, mine

  def _follow(self, folder, num, kept, given) -> Shards:
    """Runs what the process tells that has the first of the devices, and stores nothing."""
    adm = self.pipeline
    for begin, end in lockstep.following(adm.sampler.mesh):
      for _ in adm.batches(num, self.seed, begin=begin, end=end, **given):
        pass
    return shards.Shards(folder, num, adm.sampler.shape, kept)

  def _make_missing(self, job, turns, heart, run, tell, given) -> None:
    tell(lockstep.NOTHING)
    adm, part, steps = self.pipeline, run.part, self.pipeline.sampler.num_steps
    before = job.done()
    if before == job.num:
      return
    own = elsewhere = 0
    note = f'{adm.sampler.num_evaluations} evaluations each'
    bar = run.bar if part.first or part.alone else progress.no_images
    with bar(job.num, before, steps, f'sampling {job.folder.name}',
             note if part.whole else f'{note}, {part.count} processes') as report, \
        contextlib.closing(job.filling()) as filling:

      def seen(count):  # what others have made since the last look
        nonlocal elsewhere
        tell(lockstep.NOTHING)
        new = count - before - own - elsewhere
        if new > 0 and not part.whole:
          elsewhere += new
          report(new * steps, own=False)

      for begin, end in turns_lib.ranges(job, filling, turns, heart, seen):
        tell((begin, end))
        batches = adm.batches(job.num, self.seed, begin=begin, end=end, progress=report, **given)
        for images in batches if run.watch is None else run.watch(batches):
          filling.put(begin, images)
          begin += len(images)
        run = dataclasses.replace(run, watch=None)
        own += len(images)
        heart.made(len(images))

  def _turns(self, num: int, part: Part, inputs: Shards | None) -> turns_lib.Turns:
    size = self._batch(num)
    bounds = turns_lib.bounds(num, size, part.count)
    own = bounds[part.index], bounds[part.index + 1]
    if inputs is None:
      return turns_lib.Turns(size, own, bounds, part)
    # The ranges of the base, whose batches may be others: this process has made their images.
    theirs = turns_lib.bounds(inputs.num, self.base._batch(inputs.num), part.count)
    return turns_lib.Turns(size, (theirs[part.index], theirs[part.index + 1]), bounds, part,
                           inputs.missing)

  def _batch(self, num: int) -> int:
    """How many images are made at once: the grid on which any number of processes makes them."""
    adm = self.pipeline
    return sharding.round_up(adm.check_batch_size(self.batch_size, num), adm.sampler.mesh.size)

  def _base_words(self, folder: pathlib.Path, small: Shards) -> str:
    """What the description says of the base job."""
    before = shards.stored(folder).get('base')
    # Until version 0.2 it was the checksum of its file, which was there first.
    if before is not None and small.joined() and before == npz.checksum(files.local(small.samples)):
      return before
    return shards.identity(shards.stored(small.folder))

  @property
  def _single(self) -> bool:
    return self.start is not None and self.start.one_class

  def _order(self, classes: list[int] | None) -> str:
    return self.class_order or ('drawn' if classes is None else 'turn')

  def _labels(self, num: int, classes: list[int] | None) -> np.ndarray | None:
    adm = self.pipeline
    if adm.num_classes is None:
      return None
    if self._order(classes) == 'turn':
      return class_names_lib.in_turn(range(adm.num_classes) if classes is None else classes, num)
    return adm.labels(num, self.seed, classes)

  def _given(self) -> Made:
    """The images of anyone's .npz."""
    path = pathlib.Path(self.base)
    images = npz.rows(path, 'arr_0')
    labels = npz.read(path, 'arr_1') if 'arr_1' in npz.names(path) else None
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu'):
      raise UsageError(f'{path} has labels {labels.dtype} of shape {labels.shape} for '
                       f'{len(images)} images: give an integer for each')
    return Made(path, images, None if labels is None else np.asarray(labels, np.int64), None,
                npz.checksum(path))
