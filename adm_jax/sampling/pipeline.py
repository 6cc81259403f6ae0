"""A model by name, ready to sample on all devices.

    adm = load('imagenet64', guidance=(ByClassifier('imagenet64-classifier', scale=1.0),))
    images = adm(labels=[207, 360], seed=0)  # uint8 [2, 64, 64, 3]
"""

import dataclasses
import json
import math
import pathlib
from typing import Any, Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.data import class_names as class_names_lib
from adm_jax.devices import allocator, compilation_cache, memory, sharding
from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_float, to_uint8
from adm_jax.process.diffusion import Diffusion, respaced
from adm_jax.process.schedules import Schedule
from adm_jax.sampling import courses, solvers, students
from adm_jax.sampling.guidance import Bound, Guidance, Run, Scale
from adm_jax.sampling.sampler import (
  GuidedNetwork,
  Sampler,
  check_labels,
  image_keys,
  padded,
  sample_job,
)
from adm_jax.sampling.steps import Step
from adm_jax.weights import catalog, pretrained
from adm_jax.weights.folders import Trained

Array = jax.Array
Name = str | pathlib.Path

# Streams of a seed beside its images' own keys, which are numbered from 0. An upsampler's noise
# must not repeat that of the model whose images it enlarges.
_LABELS, _UPSAMPLING = 2**31 - 1, 2**31 - 2
# Pixels a device samples at once, unless told otherwise.
_PIXELS_AT_ONCE = {'cpu': 2**17}
_PIXELS_AT_ONCE_ELSE = 2**19
_MOST_AT_ONCE = 250


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
  """schedule x prediction x guidance x solver, with weights on devices; made by `load`.

  Attributes:
    sampler: the run; `sampler.shape` is an image's (H, W, C).
    run: the model, its process and its steps.
    guidance: what guides it, in order.
    bound: the same, loaded and checked.
    weights: {'model': ..., 'classifier': ..., 'weaker': ...}, on `sampler.mesh`, each array in the
      dtype that the networks read it in.
    class_names: of the model's classes, where known.
    description: JSON values that say which weights, process and guidance these are.
    samplers: by what `with_steps` was asked for, so that nothing is compiled twice.
  """
  sampler: Sampler
  run: Run
  guidance: tuple[Guidance, ...]
  bound: tuple[Bound, ...]
  weights: dict[str, Any]
  class_names: class_names_lib.Names | None
  description: dict[str, Any]
  samplers: dict[str, Sampler] = dataclasses.field(default_factory=dict, repr=False)

  @property
  def diffusion(self) -> Diffusion:
    """The respaced process."""
    return self.sampler.denoiser.diffusion

  @property
  def low_res_shape(self) -> tuple[int, int, int] | None:
    """(h, w, C) of what an upsampler enlarges; None for other models."""
    return self.run.model.network.low_res_shape

  @property
  def params(self) -> dict[str, Any]:
    """What the sampler's program takes: all weights, and the scales of guidance."""
    scales = {bound.role: bound.scales for bound in self.bound if bound.scales is not None}
    return {**self.weights, 'scales': scales}

  @property
  def dtype(self) -> str:
    """What the networks compute in."""
    return self.description['dtype']

  @property
  def num_classes(self) -> int | None:
    """How many labels there are to choose from; None if labels have no effect."""
    return self.sampler.denoiser.num_classes

  @property
  def default_batch_size(self) -> int:
    """What all devices together sample at once."""
    height, width, _ = self.sampler.shape
    pixels = _PIXELS_AT_ONCE.get(jax.default_backend(), _PIXELS_AT_ONCE_ELSE)
    return min(_MOST_AT_ONCE, max(1, pixels // (height * width))) * self.sampler.mesh.size

  def with_steps(self, steps: int | str | courses.Course | None = None, *,
                 spacing: str | Callable[[Schedule, int], Step] | None = None,
                 solver: solvers.Solver | str | None = None) -> 'Pipeline':
    """Returns the pipeline with other steps, or another solver; arguments as `load`.

    Networks are not loaded, and steps that were asked for before are not compiled again.

    Raises:
      UsageError: steps and a solver that do not go together.
    """
    solver = self.run.solver if solver is None else _solver(solver)
    course = students.course(self.run.model.network, steps, spacing, solver)
    run, diffusion, respacing = _run(self.run.name, self.run.model, self.run.published, solver,
                                     course)
    bound = _bound(self.guidance, run, self.dtype, [each.trained for each in self.bound])
    kept = {name: self.description[name] for name in ('model', 'clip', 'dtype')}
    words = _words(run, respacing, course)
    key = _key(words, run.steps)
    if key not in self.samplers:
      denoiser = dataclasses.replace(self.sampler.denoiser, diffusion=diffusion, guidance=bound)
      self.samplers[key] = dataclasses.replace(self.sampler, denoiser=denoiser, solver=solver,
                                               steps=run.steps)
    return dataclasses.replace(self, sampler=self.samplers[key], run=run, bound=bound,
                               description={**kept, **words, **_described(bound)})

  def guided(self, *, scale: Scale | None = None,
             between: tuple[float, float] | None = None) -> 'Pipeline':
    """Returns the pipeline with another scale or interval of its guidance; compiles nothing anew.

    Args:
      scale: of the one guidance that has a scale.
      between: (low, high), the sigma between which there is guidance of any kind.

    Raises:
      UsageError: nothing guides, or several kinds do: then give them to `with_guidance`. Or what
        guides has no interval.
    """
    scaled = [value for value in self.guidance if hasattr(value, 'scale')]
    if not scaled or (scale is not None and len(scaled) > 1):
      raise UsageError(f'{len(scaled)} kinds of guidance have a scale: load a pipeline with one, '
                       'or give all of them to with_guidance')
    changes = {name: value for name, value in (('scale', scale), ('between', between))
               if value is not None}
    for name in changes:
      if not any(hasattr(value, name) for value in self.guidance):
        raise UsageError(f'the guidance {_kinds(self.guidance)} has no {name}: leave it out')
    return self.with_guidance(tuple(_changed(value, changes) for value in self.guidance))

  def with_guidance(self, guidance: Sequence[Guidance]) -> 'Pipeline':
    """Returns the pipeline with other scales, intervals and the like of the same guidance.

    Networks are not loaded, and what is compiled is used again unless a scale switches guidance off
    or on altogether.

    Raises:
      UsageError: other kinds of guidance, or by other networks: load a pipeline of them.
    """
    guidance = tuple(guidance)
    if [type(value) for value in guidance] != [type(value) for value in self.guidance]:
      raise UsageError(f'this pipeline has the guidance {_kinds(self.guidance)}, not '
                       f'{_kinds(guidance)}: load one with that')
    bound = _bound(guidance, self.run, self.dtype, [each.trained for each in self.bound])
    for old, new in zip(self.bound, bound, strict=True):
      if old.fixed != new.fixed:
        raise UsageError(f'guidance {new.fixed} is another program than {old.fixed}: load a '
                         'pipeline with it')
    return dataclasses.replace(
        self, guidance=guidance, bound=bound,
        description={**self.description, **_described(bound)})

  def __call__(self, labels: str | Sequence[int] | None = None, *, num: int | None = None,
               seed: int = 0, low_res: np.ndarray | None = None, scale: Scale | None = None,
               steps: int | str | courses.Course | None = None, **kwargs) -> np.ndarray:
    """Samples images.

    Another seed, scale or labels compile nothing, nor do as many images as share a batch's size
    (`sampler.padded`).

    Args:
      labels: a class for each image, as numbers or as text ('3, golden retriever, 5-7'); by default
        drawn uniformly.
      num: how many images; by default as many as labels, or small images.
      seed: image i is a function of (seed, i, its label, its small image) alone.
      low_res: uint8[N h w C], the small images that an upsampler enlarges.
      scale: another one of the guidance, see `guided`.
      steps: others than the pipeline's, see `with_steps`.
      **kwargs: of `batches`.

    Returns:
      uint8[N H W C].

    Raises:
      UsageError: labels that the model does not know, or any other argument that makes no sense.
    """
    if steps is not None:
      return self.with_steps(steps)(labels, num=num, seed=seed, low_res=low_res, scale=scale,
                                    **kwargs)
    if scale is not None:
      return self.guided(scale=scale)(labels, num=num, seed=seed, low_res=low_res, **kwargs)
    num, labels, low_res = self._prepared(labels, num, seed, low_res)
    return np.concatenate(list(self.batches(num, seed, labels, low_res=low_res, **kwargs)))

  def batches(self, num: int, seed: int, labels: np.ndarray | None = None, *,
              low_res: np.ndarray | None = None, x: Callable | None = None,
              batch_size: int | None = None, begin: int = 0, end: int | None = None,
              chunks: int = 10,
              progress: Callable[[int], None] | None = None) -> Iterator[np.ndarray]:
    """Yields uint8[B H W C], images begin .. end - 1; arguments as `sampling.sample_job`.

    `low_res` uint8[num h w C] may be mapped from a file: only what a batch needs is read.
    """
    if (low_res is None) != (self.low_res_shape is None):
      raise UsageError('an upsampler enlarges small images, and nothing else does: '
                       + ('give low_res' if low_res is None else 'leave out low_res'))
    done, end = begin, num if end is None else end
    batch_size = self.check_batch_size(batch_size, num)

    def pixels(images):
      if not jnp.isfinite(images).all():  # as 8 bits NaN would be black, and look finished
        raise UsageError(f'images {done} to {min(done + len(images), end) - 1} are not finite: the '
                         'guidance is too strong, or the weights are not what their config says')
      return sharding.fetched(to_uint8(images), self.sampler.mesh)

    job = sample_job(
        self.sampler, self.params, key=self.key(seed), num=num, begin=begin, end=end, labels=labels,
        batch_size=batch_size, x=x,
        low_res=None if low_res is None else lambda index: to_float(low_res[index]),
        chunks=chunks, progress=progress, finish=pixels)
    with memory.enough(f'give a batch_size below {batch_size}'):
      for images in job:
        done += len(images)
        yield images

  def progressive(self, labels: str | Sequence[int] | None = None, *, num: int | None = None,
                  seed: int = 0, low_res: np.ndarray | None = None,
                  chunks: int = 10) -> Iterator[np.ndarray]:
    """Yields the predicted x_0 as uint8[N H W C] after each of the chunks of one batch."""
    num, labels, low_res = self._prepared(labels, num, seed, low_res)
    size = sharding.round_up(padded(num), self.sampler.mesh.size)
    index = np.minimum(np.arange(size), num - 1)
    for _, x0 in self.sampler.progressive(
        self.params, image_keys(self.key(seed), index),
        None if labels is None else labels[index],
        low_res=None if low_res is None else to_float(low_res[index]), chunks=chunks):
      yield sharding.fetched(to_uint8(x0), self.sampler.mesh)[:num]

  def _prepared(self, labels: str | Sequence[int] | None, num: int | None, seed: int,
                low_res: np.ndarray | None) -> tuple[int, np.ndarray | None, np.ndarray | None]:
    """(num, labels, low_res) of a call, completed and checked."""
    if isinstance(labels, str):
      labels = class_names_lib.find(labels, self.num_classes or 0, self.class_names)
    if labels is not None and not np.ndim(labels):
      raise UsageError(f'labels={labels!r}: give a label for each image, as [{labels!r}]')
    given = low_res if labels is None else labels
    num = (1 if given is None else len(given)) if num is None else num
    check_num('num', num)
    if low_res is not None:
      low_res = self._check_low_res(np.asarray(low_res), num)
    elif self.low_res_shape is not None:
      raise UsageError('an upsampler enlarges small images: give low_res')
    labels = self.labels(num, seed) if labels is None else labels
    return num, check_labels(labels, num, self.num_classes), low_res

  def key(self, seed: int) -> Array:
    """The key of a job: `sampling.image_keys` makes the images' from it."""
    check_seed(seed)
    key = jax.random.key(seed)
    return key if self.low_res_shape is None else jax.random.fold_in(key, _UPSAMPLING)

  def labels(self, num: int, seed: int,
             classes: Sequence[int] | None = None) -> np.ndarray | None:
    """i32[num], drawn uniformly from `classes`, by default all; None for a model without any."""
    if self.num_classes is None:
      return None
    check_seed(seed)
    key = jax.random.fold_in(jax.random.key(seed), _LABELS)
    return class_names_lib.drawn(range(self.num_classes) if classes is None else classes, num, key)

  def check_batch_size(self, batch_size: int | None, num: int) -> int:
    """Returns how many of `num` images to sample at once, where at most `batch_size` are wanted.

    Raises:
      UsageError: no such number, or not even the images of a batch have room, whatever the networks
        need.
    """
    if batch_size is not None:
      check_num('batch_size', batch_size)
    batch_size = min(batch_size or self.default_batch_size, padded(num))
    devices = self.sampler.mesh.devices.flat
    # x and x_0 in float32 and the same again of the step before.
    needed = 16 * math.prod(self.sampler.shape) * batch_size // self.sampler.mesh.size
    have = memory.of_each(devices)
    if have is not None and needed > have:
      raise UsageError(f'batch_size={batch_size:,}: its images alone take {needed / 1e9:,.0f} GB '
                       f'of each {devices[0].device_kind}, which has {have / 1e9:,.0f}: give less')
    return batch_size

  def _check_low_res(self, low_res: np.ndarray, num: int) -> np.ndarray:
    check_small_images(low_res, self.low_res_shape)
    if len(low_res) < num:
      raise UsageError(f'{len(low_res)} small images do not make {num}')
    return low_res


def check_num(name: str, num: Any) -> None:
  """Raises UsageError unless `num` images can be told apart by their keys."""
  if isinstance(num, bool) or not isinstance(num, (int, np.integer)) or not 1 <= num < _UPSAMPLING:
    raise UsageError(f'{name}={num!r}: give a whole number from 1 to {_UPSAMPLING - 1:,}')


def check_seed(seed: Any) -> None:
  """Raises UsageError unless `seed` names a key of its own."""
  if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
    raise UsageError(f'seed={seed!r}: give a whole number from 0 to {2**32 - 1}')


def check_small_images(images: np.ndarray, shape: tuple[int, int, int]) -> None:
  """Raises UsageError unless `images` are uint8[N *shape], what an upsampler enlarges."""
  if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
    raise UsageError(f'the small images are {images.dtype} of shape {images.shape}: give uint8 '
                     '[N, h, w, C]')
  check_small_shape(images.shape[1:], shape)


def check_small_shape(found: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
  """Raises UsageError unless images of (h, w, C) `found` are what an upsampler enlarges."""
  if found != shape:
    raise UsageError(f'the upsampler enlarges images of {_size(shape)}, these are {_size(found)}: '
                     'give an upsampler or images of another size')


def load(model: Name | Trained, *, guidance: Sequence[Guidance] = (),
         solver: solvers.Solver | str | None = None,
         steps: int | str | courses.Course | None = None,
         spacing: str | Callable[[Schedule, int], Step] | None = None, clip: bool = True,
         weights: Name | None = None, dtype: str | None = None, fsdp: int | None = None,
         devices: Sequence[jax.Device] | None = None) -> Pipeline:
  """Gets a network and its guidance ready to sample.

  Args:
    model: a published model, a work directory, a file of weights (`pretrained.load`), or what that
      returned. `pretrained.outline` gives one without weights: its pipeline compiles, but makes no
      images.
    guidance: what guides it, folded in order, the first next to the model: see `guidance`.
    solver: the method, or its name; by default ancestral sampling, or a student's own.
    steps: how many; by default the paper's for the model, or 250, or those that a student was
      taught. Text is a respacing of the reference's ('250', 'ddim25', '90,60,60,20,20'), a
      `courses.Course` says all.
    spacing: how `steps` steps (by default 20) lie in the whole process, or its name; only for
      solvers that know steps between others than neighbors. By default even in time.
    clip: see `diffusion.predict`.
    weights: of a published model its file, of a folder which weights, see `pretrained.load`.
    dtype: the networks compute in it; by default bfloat16 on accelerators and float32 on CPUs.
    fsdp: how many devices share one copy of the weights; by default as many as must.
    devices: by default all of this process.

  Raises:
    UsageError: models that do not go together, or that cannot be read.
  """
  allocator.fill_holes()
  compilation_cache.use()
  trained = pretrained.trained(model, weights)
  network = trained.network
  solver = _solver(students.solver(network, solver))
  course = students.course(network, steps, spacing, solver)
  if network.classifies:
    raise UsageError(f'{model} is a classifier, which guides another model: give it as '
                     '--classifier, or in Python as guidance=(ByClassifier(...),)')
  run, diffusion, respacing = _run(None if isinstance(model, Trained) else str(model), trained,
                                   catalog.MODELS.get(str(model)), solver, course)
  dtype = dtype or default_dtype()
  guidance = students.guidance(network, _checked(guidance))
  bound = _bound(guidance, run, dtype, [None] * len(guidance))
  params = {'model': trained.params,
            **{each.role: each.trained.params for each in bound if each.trained is not None}}
  denoiser = GuidedNetwork(network.having(dtype=dtype), diffusion, bound, clip)
  dtypes = _read_dtypes(denoiser, params, dtype)
  size = sum(leaf.size * dtype.itemsize for leaf, dtype in zip(
      jax.tree.leaves(params), jax.tree.leaves(dtypes), strict=True))
  devices = jax.local_devices() if devices is None else devices
  mesh = sharding.mesh(sharding.fsdp_needed(size, devices) if fsdp is None else fsdp, devices)
  sampler = Sampler(denoiser, solver, run.steps, network.image_shape, mesh)
  words = _words(run, respacing, course)
  description = {'model': pretrained.describe(model, trained), 'clip': clip, 'dtype': dtype,
                 **words, **_described(bound)}
  named = [trained, *(each.trained for each in bound if each.trained is not None)]
  return Pipeline(sampler, run, guidance, bound, sharding.place_params(params, mesh, dtypes),
                  _class_names(named, denoiser.num_classes), description,
                  {_key(words, run.steps): sampler})


def default_dtype() -> str:
  """What networks compute in unless another dtype is asked for."""
  return 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'


# ---------------------------------------------------------------------------------------------


def _run(name: str | None, model: Trained, published: catalog.Model | None,
         solver: solvers.Solver, course: courses.Course) -> tuple[Run, Diffusion, str]:
  """(a run, its process, the respacing that made it)."""
  process, respacing = model.network.diffusion, course.respacing
  if respacing is None:
    respacing = _default_respacing(process, published)
  diffusion = respaced(process, respacing)
  schedule = diffusion.schedule
  run = Run(name, model, published, schedule, course.steps(schedule), solver)
  students.check(run)
  return run, diffusion, respacing


def _read_dtypes(denoiser: GuidedNetwork, weights: dict[str, Any], dtype: str) -> dict[str, Any]:
  """The dtypes to hold weights in: see `GuidedNetwork.read_dtypes`."""
  if jnp.dtype(dtype).itemsize >= 4:  # nothing narrows; tracing a network takes seconds
    return jax.tree.map(lambda leaf: np.dtype(leaf.dtype), weights)
  scales = {each.role: each.scales for each in denoiser.guidance if each.scales is not None}
  found = denoiser.read_dtypes({**weights, 'scales': scales})
  return {name: found[name] for name in weights}


def _words(run: Run, respacing: str, course: courses.Course) -> dict[str, Any]:
  """What of a description the steps and the solver are."""
  return {'respacing': respacing, 'solver': run.solver.name, **dict(run.solver.settings),
          **course.described(run.steps, run.schedule)}


def _key(words: dict[str, Any], steps: Step) -> str:
  """Tells the samplers of a pipeline apart; two functions of one name may take other steps."""
  return json.dumps([words, *(np.asarray(leaf).tolist() for leaf in jax.tree.leaves(steps))])


def _solver(solver: solvers.Solver | str) -> solvers.Solver:
  if isinstance(solver, str):
    return solvers.by_name(solver)
  if not isinstance(solver, solvers.Solver):
    raise UsageError(f'solver={solver!r}: give its name, as \'ddim\', or what a function of '
                     'adm_jax.solvers returns, as solvers.ddim()')
  return solver


def _checked(guidance: Sequence[Guidance]) -> tuple[Guidance, ...]:
  """Guidance as a tuple; one value alone is as good."""
  guidance = tuple(guidance) if isinstance(guidance, (tuple, list)) else (guidance,)
  for value in guidance:
    if not callable(getattr(value, 'bind', None)) or isinstance(value, type):
      raise UsageError(f'guidance {value!r}: give values of adm_jax.guidance, as '
                       '(guidance.ClassifierFree(2.0),), or others that have bind')
  return guidance


def _bound(guidance: Sequence[Guidance], run: Run, dtype: str,
           loaded: Sequence[Trained | None]) -> tuple[Bound, ...]:
  """Binds guidance to a run, by networks that are there already where there are."""
  bound = [value.bind(run, dtype, trained) for value, trained in zip(guidance, loaded, strict=True)]
  for value, each in zip(guidance, bound, strict=True):
    if not isinstance(each, Bound):
      raise UsageError(f'{type(value).__name__}.bind returns a {type(each).__name__}: it should '
                       'return a guidance.Bound')
  return _of_different_roles(bound)


def _of_different_roles(bound: Iterable[Bound]) -> tuple[Bound, ...]:
  """Numbers the roles of guidance of one kind, so that each has weights and a scale of its own."""
  result, counts = [], {}
  for each in bound:
    counts[each.role] = counts.get(each.role, 0) + 1
    number = counts[each.role]
    result.append(each if number == 1 else each._replace(role=f'{each.role}_{number}'))
  return tuple(result)


def _described(bound: Sequence[Bound]) -> dict[str, Any]:
  return {'guidance': {each.role: each.description for each in bound},
          'order': [each.role for each in bound]}


def _changed(value: Guidance, changes: dict[str, Any]) -> Guidance:
  """`value` with those of the changes for which it has a field."""
  own = {name: new for name, new in changes.items() if hasattr(value, name)}
  return dataclasses.replace(value, **own) if own else value


def _kinds(guidance: Sequence[Guidance]) -> str:
  return ', '.join(type(value).__name__ for value in guidance) or '(none)'


def _default_respacing(diffusion: Diffusion, published: catalog.Model | None) -> str:
  if published is not None:
    return published.respacing
  return str(min(250, diffusion.schedule.num_steps))


def _class_names(named: Sequence[Trained], num_classes: int | None) -> class_names_lib.Names | None:
  """The names that training left; a thousand classes without any are taken to be ImageNet's."""
  for trained in reversed(named):
    if trained.class_names is not None and len(trained.class_names) == num_classes:
      return tuple((name,) for name in trained.class_names)
  names = class_names_lib.imagenet()
  return names if num_classes == len(names) else None


def _size(shape: tuple[int, ...]) -> str:
  return ' x '.join(map(str, shape))
