"""A model by name, ready to sample on all devices.

    adm = pipeline.load('imagenet64', classifier='imagenet64-classifier', scale=1.0)
    images = adm(labels=[207, 360], seed=0)  # uint8 [2, 64, 64, 3]
"""

import dataclasses
import hashlib
import pathlib
from typing import Any, Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.data import class_names as labels_lib
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.io import progress
from adm_jax.io.pixels import to_float, to_uint8
from adm_jax.models import Classifier, SuperRes
from adm_jax.process.diffusion import Diffusion, dynamic_threshold, respaced
from adm_jax.sampling import solvers
from adm_jax.sampling.guidance import Scale, every_kth, scale_table
from adm_jax.sampling.sampler import NetworkDenoiser, Sampler, check_labels, image_keys, sample_job
from adm_jax.sampling.steps import descend
from adm_jax.training.checkpoints import Trained
from adm_jax.weights import catalog, pretrained

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
    diffusion: the respaced process.
    params: the weights, {'model': ..., 'classifier': ..., 'weaker': ...}, on `sampler.mesh`.
    low_res_shape: (h, w, C) of what an upsampler enlarges; None for other models.
    class_names: of the model's classes, where known.
    description: JSON values that say which weights, process and guidance these are.
  """
  sampler: Sampler
  diffusion: Diffusion
  params: Any
  low_res_shape: tuple[int, int, int] | None
  class_names: labels_lib.Names | None
  description: dict[str, Any]

  @property
  def num_classes(self) -> int | None:
    return self.sampler.denoiser.num_classes

  @property
  def default_batch_size(self) -> int:
    """What all devices together sample at once."""
    height, width, _ = self.sampler.shape
    pixels = _PIXELS_AT_ONCE.get(jax.default_backend(), _PIXELS_AT_ONCE_ELSE)
    return min(_MOST_AT_ONCE, max(1, pixels // (height * width))) * self.sampler.mesh.size

  def __call__(self, labels: Sequence[int] | None = None, *, num: int | None = None, seed: int = 0,
               low_res: np.ndarray | None = None, **kwargs) -> np.ndarray:
    """Samples images.

    Args:
      labels: a class for each image; by default drawn uniformly.
      num: how many images; by default as many as labels, or small images.
      seed: image i is a function of (seed, i, its label, its small image) alone.
      low_res: uint8[N h w C], the small images that an upsampler enlarges.
      **kwargs: of `batches`.

    Returns:
      uint8[N H W C].
    """
    num, labels, low_res = self._prepared(labels, num, seed, low_res)
    return np.concatenate(list(self.batches(num, seed, labels, low_res=low_res, **kwargs)))

  def batches(self, num: int, seed: int, labels: np.ndarray | None = None, *,
              low_res: np.ndarray | None = None, x: Callable | None = None,
              batch_size: int | None = None, begin: int = 0, parts: int = 10,
              progress: Callable[[int], None] | None = None) -> Iterator[np.ndarray]:
    """Yields uint8[B H W C], images begin .. num - 1; arguments as `sampling.sample_job`.

    `low_res` uint8[num h w C] may be mapped from a file: only what a batch needs is read.
    """
    if (low_res is None) != (self.low_res_shape is None):
      raise UsageError('an upsampler enlarges small images, and nothing else does: '
                       + ('give low_res' if low_res is None else 'leave out low_res'))
    job = sample_job(
        self.sampler, self.params, key=self.key(seed), num=num, begin=begin, labels=labels,
        batch_size=batch_size or self.default_batch_size, x=x,
        low_res=None if low_res is None else lambda index: to_float(low_res[index]), parts=parts,
        progress=progress)
    done = begin
    for images in job:
      # As 8 bits NaN would be black, and look finished.
      if not jnp.isfinite(images).all():
        raise UsageError(f'images {done} to {done + len(images) - 1} are not finite: the guidance '
                         'is too strong, or the weights are not what their config says')
      done += len(images)
      yield np.asarray(to_uint8(images))

  def progressive(self, labels: Sequence[int] | None = None, *, num: int | None = None,
                  seed: int = 0, low_res: np.ndarray | None = None,
                  parts: int = 10) -> Iterator[np.ndarray]:
    """Yields the predicted x_0 as uint8[N H W C] after each of the parts of one batch."""
    num, labels, low_res = self._prepared(labels, num, seed, low_res)
    index = np.minimum(np.arange(-(-num // self.sampler.mesh.size) * self.sampler.mesh.size),
                       num - 1)
    for _, x0 in self.sampler.progressive(
        self.params, image_keys(self.key(seed), index),
        None if labels is None else labels[index],
        low_res=None if low_res is None else to_float(low_res[index]), parts=parts):
      yield np.asarray(to_uint8(x0))[:num]

  def _prepared(self, labels: Sequence[int] | None, num: int | None, seed: int,
                low_res: np.ndarray | None) -> tuple[int, np.ndarray | None, np.ndarray | None]:
    """(num, labels, low_res) of a call, completed and checked."""
    given = low_res if labels is None else labels
    num = (1 if given is None else len(given)) if num is None else num
    if num < 1:
      raise UsageError(f'num={num}: give at least 1')
    if low_res is not None:
      low_res = self._check_low_res(np.asarray(low_res), num)
    elif self.low_res_shape is not None:
      raise UsageError('an upsampler enlarges small images: give low_res')
    labels = self.labels(num, seed) if labels is None else labels
    return num, check_labels(labels, num, self.num_classes), low_res

  def key(self, seed: int) -> Array:
    """The key of a job: `sampling.image_keys` makes the images' from it."""
    key = jax.random.key(seed)
    return key if self.low_res_shape is None else jax.random.fold_in(key, _UPSAMPLING)

  def labels(self, num: int, seed: int,
             classes: Sequence[int] | None = None) -> np.ndarray | None:
    """i32[num], drawn uniformly from `classes`, by default all; None for a model without any."""
    if self.num_classes is None:
      return None
    key = jax.random.fold_in(jax.random.key(seed), _LABELS)
    return labels_lib.drawn(range(self.num_classes) if classes is None else classes, num, key)

  def _check_low_res(self, low_res: np.ndarray, num: int) -> np.ndarray:
    check_small_images(low_res, self.low_res_shape)
    if len(low_res) < num:
      raise UsageError(f'{len(low_res)} small images do not make {num}')
    return low_res


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


def load(model: Name | Trained, *, classifier: Name | Trained | None = None,
         scale: Scale | None = None, respacing: str | None = None,
         solver: solvers.Solver | None = None, weights: Name | None = None,
         classifier_weights: Name | None = None, clip: bool = True,
         clip_guided: bool | None = None,
         steps: Callable = descend, cfg_scale: Scale | None = None,
         weaker: Name | Trained | None = None, weaker_scale: Scale | None = None,
         weaker_weights: Name | None = None, interval: tuple[float, float] | None = None,
         normalize: bool = False, classifier_every: int = 1,
         threshold_share: float | None = None, dtype: str | None = None, fsdp: int | None = None,
         devices: Sequence[jax.Device] | None = None,
         bar: Callable = progress.bar) -> Pipeline:
  """Gets networks ready to sample.

  Args:
    model: a published model, a work directory, a file of weights (`pretrained.load`), or what that
      returned. Of `pretrained.outline` comes a pipeline that can be compiled, but makes no images.
    classifier: what guides it, likewise.
    scale: of the classifier's gradient, a number, one a step of the respaced schedule, or a
      function of their sigma, as the two scales below; by default the paper's for this pair, or 1.
    respacing: which of the process's steps to take ('250', 'ddim25', '90,60,60,20,20'); by default
      the paper's for the model, or 250 of them.
    solver: by default `solvers.ancestral()`.
    weights: see `pretrained.load`.
    classifier_weights: the same for the classifier.
    clip: see `diffusion.predict`.
    clip_guided: see `guidance.guided`; by default as the solver says.
    steps: where the solver goes, a function of the respaced schedule: `steps.descend`, or with
      respacing '' one that leads through the whole process, as those of `spacing` are meant to.
    cfg_scale: classifier-free guidance, see `guidance.classifier_free`, of a model that was trained
      with label dropout.
    weaker: a weaker model of the same images, which guides by `guidance.autoguided`.
    weaker_scale: of that; by default 2.
    weaker_weights: as `weights`.
    interval: (low, high), the sigma between which there is guidance.
    normalize: the classifier's gradient, see `guidance.normalized`.
    classifier_every: ask it at every k-th step only, see `guidance.every_kth`.
    threshold_share: threshold the guided x_0 dynamically instead of clipping it, see
      `diffusion.dynamic_threshold`.
    dtype: the networks compute in it; by default bfloat16 on accelerators and float32 on CPUs.
    fsdp: how many devices share one copy of the weights; by default as many as must.
    devices: by default all.
    bar: shows the progress of downloads.

  Raises:
    UsageError: models that do not go together, or that cannot be read.
  """
  if classifier is None and (scale is not None or classifier_weights is not None):
    raise UsageError('a scale or weights of a classifier are given, but no classifier: name one')
  if weaker is None and (weaker_scale is not None or weaker_weights is not None):
    raise UsageError('a scale or weights of a weaker model are given, but no model: name one')
  if classifier is None and (normalize or classifier_every != 1):
    raise UsageError('normalized gradients, or some at every k-th step, are a classifier\'s: name '
                     'one')
  if interval is not None and classifier is None and weaker is None and cfg_scale is None:
    raise UsageError('an interval is given, but nothing guides: name a classifier or a weaker '
                     'model, or give a scale of classifier-free guidance')
  published = catalog.MODELS.get(str(model))
  trained = _trained(model, weights, bar)
  if isinstance(trained.task.model, Classifier):
    raise UsageError(f'{model} is a classifier, which guides another model: give it as classifier')
  guide = None if classifier is None else _trained(classifier, classifier_weights, bar)
  if guide is not None:
    _check_pair(trained, guide)
    paired = published is not None and published.classifier == str(classifier)
    scale = (published.scale if paired else 1.0) if scale is None else scale
  if cfg_scale is not None and trained.task.null_label is None:
    raise UsageError(f'{_name(model)} was trained without label dropout, so that there is no '
                     'classifier-free guidance: guide it by a classifier or a weaker model')
  poor = None if weaker is None else _trained(weaker, weaker_weights, bar)
  if poor is not None:
    _check_weaker(trained, poor)
    weaker_scale = 2.0 if weaker_scale is None else weaker_scale
  respacing = _respacing(trained.task.diffusion, published) if respacing is None else respacing
  solver = solver or solvers.ancestral()
  diffusion = respaced(trained.task.diffusion, respacing)
  dtype = dtype or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
  networks = {'model': trained, 'classifier': guide, 'weaker': poor}
  params = {name: network.params for name, network in networks.items() if network is not None}
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
  mesh = sharding.mesh(sharding.fsdp_needed(size, devices) if fsdp is None else fsdp, devices)
  run_steps = steps(diffusion.schedule)
  if clip_guided is None:
    alpha_bar = np.float64(run_steps.alpha_bar[0])
    clip_guided = bool(np.sqrt(1 / alpha_bar - 1) > solver.clip_guided_above)
  scales = 1.0 if scale is None else scale
  if classifier_every != 1:
    scales = every_kth(scales, diffusion.schedule, run_steps.t, classifier_every)
  modules = {name: None if network is None else _computing_in(network.task.model, dtype)
             for name, network in networks.items()}
  denoiser = NetworkDenoiser(
      **modules, diffusion=diffusion, scale=scales, clip=clip, clip_guided=clip_guided,
      null_label=trained.task.null_label, cfg_scale=cfg_scale,
      weaker_scale=1.0 if weaker_scale is None else weaker_scale, interval=interval,
      normalize=normalize,
      threshold=None if threshold_share is None else dynamic_threshold(threshold_share))
  sampler = Sampler(denoiser, solver, run_steps, trained.task.image_shape,
                    mesh)

  def described(scale):
    return scale_table(scale, diffusion.schedule).tolist() if callable(scale) or np.ndim(
        scale) else scale
  description = {
      'model': _describe(model, trained),
      'classifier': None if guide is None else _describe(classifier, guide),
      'weaker': None if poor is None else _describe(weaker, poor),
      'scale': described(scale), 'respacing': respacing, 'clip': clip, 'clip_guided': clip_guided,
      'cfg_scale': described(cfg_scale), 'weaker_scale': described(weaker_scale),
      'interval': interval, 'normalize': normalize, 'classifier_every': classifier_every,
      'threshold_share': threshold_share, 'dtype': dtype}
  return Pipeline(sampler, diffusion, sharding.place_params(params, mesh),
                  trained.task.low_res_shape,
                  _class_names(guide if guide is not None else trained, denoiser.num_classes),
                  description)


# ---------------------------------------------------------------------------------------------


def _trained(model: Name | Trained, weights: Name | None, bar: Callable) -> Trained:
  return model if isinstance(model, Trained) else pretrained.load(model, weights, bar)


def _check_pair(model: Trained, classifier: Trained) -> None:
  if not isinstance(classifier.task.model, Classifier):
    raise UsageError('what is given as classifier is a network that makes images: give a '
                     'classifier of the same image size')
  shapes = model.task.image_shape, classifier.task.image_shape
  if shapes[0] != shapes[1]:
    raise UsageError(f'the classifier is for images of {_size(shapes[1])}, the model makes '
                     f'{_size(shapes[0])}: give a classifier of that size')
  counts = model.task.num_classes, classifier.task.num_classes
  if counts[0] not in (None, counts[1]):
    raise UsageError(f'the classifier knows {counts[1]} classes, the model {counts[0]}: give one '
                     'that was trained on the same classes')
  if model.task.diffusion.schedule != classifier.task.diffusion.schedule:
    raise UsageError('the classifier was trained on another noise schedule than the model: give '
                     'one of the same schedule')


def _check_weaker(model: Trained, weaker: Trained) -> None:
  if isinstance(weaker.task.model, Classifier):
    raise UsageError('what is given as weaker model is a classifier: give it as classifier')
  for what, of in (('images', lambda task: (_size(task.image_shape), task.low_res_shape)),
                   ('classes', lambda task: task.num_classes),
                   ('process', lambda task: task.diffusion)):
    if of(model.task) != of(weaker.task):
      raise UsageError(f'the weaker model is of other {what} than the model: give one that was '
                       'trained on the same')


def _respacing(diffusion: Diffusion, published: catalog.Model | None) -> str:
  if published is not None:
    return published.respacing
  return str(min(250, diffusion.schedule.num_steps))


def _computing_in(module: Any, dtype: str) -> Any:
  if isinstance(module, SuperRes):
    return module.clone(unet=module.unet.clone(dtype=dtype))
  return module.clone(dtype=dtype)


def _class_names(trained: Trained, num_classes: int | None) -> labels_lib.Names | None:
  """The names that training left; a thousand classes without any are taken to be ImageNet's."""
  if trained.class_names is not None and len(trained.class_names) == num_classes:
    return tuple((name,) for name in trained.class_names)
  names = labels_lib.imagenet()
  return names if num_classes == len(names) else None


def _name(model: Name | Trained) -> str:
  return 'weights in memory' if isinstance(model, Trained) else str(model)


def _describe(name: Name | Trained, trained: Trained) -> dict[str, Any]:
  return {'name': _name(name), 'weights': trained.weights, 'step': trained.step,
          'fingerprint': _fingerprint(trained.params)}


def _fingerprint(params: Any) -> str:
  """Tells sets of weights apart; looks at a few numbers of each array, so that it takes no time."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype}'.encode())
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      flat = np.asarray(leaf).reshape(-1)
      digest.update(flat[::max(1, len(flat) // 64)].tobytes())
  return digest.hexdigest()[:16]


def _size(shape: tuple[int, ...]) -> str:
  return ' x '.join(map(str, shape))
