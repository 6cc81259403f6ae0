"""Any number of images in a folder: what `adm sample` does, for Python.

    SamplingJob(load('imagenet64'), num=50_000, seed=0).write('runs/imagenet64')

Images are written as they are made; the same job goes on where it was stopped, and ends with the
same bytes. FOLDER/samples.npz has the published layout: arr_0, uint8 N H W C, and arr_1, labels.
"""

import dataclasses
import pathlib
from typing import Any, Callable, Iterable, NamedTuple, Sequence

import numpy as np

from adm_jax.data import class_names as class_names_lib
from adm_jax.errors import UsageError
from adm_jax.io import npz, progress
from adm_jax.sampling import shards
from adm_jax.sampling.initial_states import InitialStates
from adm_jax.sampling.pipeline import (
  Pipeline,
  check_num,
  check_seed,
  check_small_images,
  check_small_shape,
)
from adm_jax.sampling.sampler import check_labels


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

  def write(self, folder: str | pathlib.Path, *, bar: Callable = progress.images,
            watch: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]] | None = None) -> Made:
    """Makes what is missing of the job in `folder`.

    Args:
      folder: new, empty, or of the same job.
      bar: shows progress, see `progress.images`.
      watch: passes batches on as they come, for whoever measures the first; of a job with a base
        job, these are the base's.

    Raises:
      UsageError: the folder holds something else, or another process works in it; nothing is
        touched.
    """
    folder = pathlib.Path(folder).absolute()
    shards.check_folder(folder)
    if isinstance(self.base, SamplingJob):
      return self._enlarge(self.base.write(folder / shards.BASE, bar=bar, watch=watch), folder, bar,
                           None)
    if self.base is not None:
      return self._enlarge(self._given(), folder, bar, watch)
    return self._sample(folder, bar, watch)

  def _sample(self, folder, bar, watch) -> Made:
    adm, classes = self.pipeline, self.chosen_classes()
    num = self.num or (None if self.start is None else self.start.num) or (
        len(classes) if classes is not None and not self._single else 16)
    shards.check_space(folder, num, adm.sampler.shape)
    labels = self._labels(num, classes)
    x = None if self.start is None else self.start.start(adm, num, labels, self.seed)
    description = {'classes': 'all' if classes is None else classes,
                   'class_order': self._order(classes),
                   'start': None if self.start is None else self.start.describe()}
    return self._make(folder, bar, watch, description, num, labels, labels, x=x)

  def _enlarge(self, small: Made, folder, bar, watch) -> Made:
    adm = self.pipeline
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
    return self._make(folder, bar, watch, {'base': small.checksum, 'start': None}, num, labels,
                      kept, low_res=small.images)

  def _make(self, folder, bar, watch, description, num, labels, kept, **given) -> Made:
    """Makes what is missing; `labels` are for the network, `kept` for the file."""
    adm = self.pipeline
    labels = check_labels(labels, num, adm.num_classes)
    adm.check_batch_size(self.batch_size, num)
    description = {'version': shards.VERSION, **adm.description, 'seed': self.seed, 'num': num,
                   **description}
    with shards.open_folder(folder, description, num, adm.sampler.shape, kept) as job:
      done = job.done()
      if done < num:
        with bar(num, done, adm.sampler.num_steps, f'sampling {folder.name}',
                 f'{adm.sampler.num_evaluations} evaluations each') as report:
          for begin, end in job.missing():
            batches = adm.batches(num, self.seed, labels, begin=begin, end=end,
                                  batch_size=self.batch_size, progress=report, **given)
            job.fill(begin, batches if watch is None else watch(batches))
            watch = None
      path = job.finish()
      return Made(path, job.images(), job.labels, adm.class_names, npz.checksum(path))

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
