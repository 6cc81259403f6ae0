"""Features of streams of images, by Inception or by another extractor."""

import dataclasses
import pathlib
from typing import Any, Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.data.sources import Source
from adm_jax.data.streams import in_batches, num_batches
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.evaluation import inception_weights
from adm_jax.evaluation.inception import Features, Inception
from adm_jax.io import functions
from adm_jax.io.meetings import Meeting
from adm_jax.io.pixels import to_float
from adm_jax.weights import pretrained, shipped
from adm_jax.weights.folders import Trained

Array = jax.Array

INCEPTION = 'inception-2015'


@dataclasses.dataclass(frozen=True)
class Extractor:
  """What turns images into features.

  Attributes:
    name: for reports.
    hash: 16 hexadecimal digits; numbers of extractors with different ones do not compare.
    function: uint8[B H W C] -> `Features` of the same B, for any one B.
    published: whether these are the network and the weights that FID is defined by.
    num_classes: where the logits are of the classes that labels name, how many; else None.
  """
  name: str
  hash: str
  function: Callable[[np.ndarray], Features]
  published: bool = False
  num_classes: int | None = None


def size_of_batches(batch_size: int) -> int:
  """What `extract_batches` makes of a `batch_size`: a multiple of this process's devices."""
  return sharding.round_up(batch_size, jax.local_device_count())


def extract_batches(extractor: Extractor, images: Source, *, batch_size: int = 64,
                    only: range | None = None,
                    advance: Callable[[int], None] = lambda count: None
                    ) -> Iterator[tuple[np.ndarray, Features]]:
  """(images uint8[B H W C], their features) of one batch after another, as NumPy arrays.

  The last batch is padded for the extractor, so that it compiles once, and cut again.

  Args:
    extractor: what to apply.
    images: to what.
    batch_size: over all devices; rounded up to a multiple of their number.
    only: the numbers of batches to look at, consecutive; by default all.
    advance: advance(count) after each batch.

  Raises:
    UsageError: the extractor's answer is not finite, or not one vector per image.
  """
  size = size_of_batches(batch_size)
  for batch in in_batches(images, size, only):
    have = len(batch)
    padded = np.pad(batch, ((0, size - have), (0, 0), (0, 0), (0, 0)))
    features = jax.tree.map(np.asarray, extractor.function(padded))
    for array in jax.tree.leaves(features):
      if array.ndim != 2 or len(array) != size:
        raise UsageError(f'{extractor.name} gives {array.shape} for {size} images: give one vector '
                         'per image')
    features = jax.tree.map(lambda array: array[:have], features)
    for array in jax.tree.leaves(features):
      if not np.isfinite(array).all():
        raise UsageError(f'{extractor.name} gives NaN or infinity for images of {images.name}: '
                         'no number would mean anything')
    advance(have)
    yield batch, features


def extract(extractor: Extractor, images: Source, *, batch_size: int = 64,
            only: range | None = None, **kwargs: Any) -> Features:
  """The features of all images, f32[N ...] in NumPy; keyword arguments as `extract_batches`.

  Memory: the features, and a batch of images.
  """
  whole, start, size = None, 0, size_of_batches(batch_size)
  count = len(images) if only is None else (
      max(0, min(only.stop * size, len(images)) - only.start * size))
  for _, features in extract_batches(extractor, images, batch_size=batch_size, only=only, **kwargs):
    if whole is None:
      whole = jax.tree.map(lambda x: np.empty((count, x.shape[1]), np.float32), features)
    end = start + len(features.pool)
    for target, part in zip(jax.tree.leaves(whole), jax.tree.leaves(features)):
      target[start:end] = part
    start = end
  if whole is None:
    raise UsageError(f'{images.name} has no images')
  return whole


def extract_together(extractor: Extractor, images: Source, meeting: Meeting, name: str, *,
                     batch_size: int = 64, **kwargs: Any) -> Features:
  """`extract` on several processes, each of which looks at a share of the batches.

  All get `pool`; the other features, which only sums are made of, only the first process.

  Args:
    extractor: what to apply.
    images: to what.
    meeting: of the processes.
    name: of what is exchanged.
    batch_size: of one process.
    **kwargs: of `extract_batches`.
  """
  if meeting.part.whole:
    return extract(extractor, images, batch_size=batch_size, **kwargs)
  own = meeting.part.of(num_batches(images, size_of_batches(batch_size)))
  found = extract(extractor, images, batch_size=batch_size, only=own, **kwargs) if own else None
  kinds = {} if found is None else {
      field.name: getattr(found, field.name) for field in dataclasses.fields(found)
      if getattr(found, field.name) is not None}
  pool = {'pool': kinds.pop('pool')} if kinds else {}
  parts = meeting.gather(f'{name}_pool', pool)
  rest = meeting.gather(f'{name}_rest', kinds, everyone=False)
  def joined(parts, kind):
    arrays = [part[kind] for part in parts if kind in part]
    return np.concatenate(arrays) if arrays else None
  return Features(joined(parts, 'pool'), joined(rest, 'spatial'), joined(rest, 'logits'))


def over_devices(function: Callable[[Any, Array], Features],
                 params: Any) -> Callable[[np.ndarray], Features]:
  """images -> function(params, images), compiled, the images split over this process's devices."""
  mesh = sharding.mesh(devices=jax.local_devices())
  params = jax.device_put(params, sharding.replicated(mesh))
  compiled = jax.jit(function, in_shardings=(sharding.replicated(mesh), sharding.over_batch(mesh)))
  return lambda images: compiled(params, images)


def inception(path: pathlib.Path | None, bar: Callable, *, dtype: Any = jnp.float32) -> Extractor:
  """Inception with weights from `path`, or the published ones, fetched once.

  Args:
    path: as for `inception_weights.load`.
    bar: as for `downloads.fetch`.
    dtype: of the convolutions; another than float32 gives numbers that are not the published ones.

  Raises:
    UsageError: the weights cannot be had.
  """
  params, published = inception_weights.load(path, bar)
  exact = jnp.dtype(dtype) == jnp.float32
  name = INCEPTION if exact else f'{INCEPTION} in {jnp.dtype(dtype).name}'
  if not published:
    name += ' (weights not verified)'

  return Extractor(name, inception_weights.fingerprint(params),
                   over_devices(of_inception(dtype), params), published and exact)


def of_inception(dtype: Any = jnp.float32) -> Callable[[Any, Array], Features]:
  """Returns (params, images uint8[B H W C]) -> `Features`: the program of `inception`."""
  return lambda params, images: Inception(dtype).apply({'params': params}, images)


def by_name(name: str) -> Extractor:
  """The extractor that a user named: 'FILE.py:FUNCTION', or a trained classifier.

  Args:
    name: of a function; or the folder of a classifier, or the name of one that comes with the
      package.

  Raises:
    UsageError: there is no such function or classifier.
  """
  if functions.is_own(name):
    return _of_file(name)
  if name in shipped.names() or pathlib.Path(name).is_dir():
    return of_classifier(pretrained.load(name), name)
  raise UsageError(f'there is no extractor {name!r}: give the folder of a trained classifier, or '
                   'FILE.py:FUNCTION, a function of uint8 images (B, H, W, C) to vectors (B, D)')


def _of_file(name: str) -> Extractor:
  """A user's function: uint8[B H W C] -> [B D]."""
  function = functions.load(name)

  def features(images):
    try:
      return Features(np.asarray(function(images), np.float32))
    except Exception as error:
      raise UsageError(f'{name} fails on images {images.shape}: {type(error).__name__}: '
                       f'{" ".join(str(error).split())}') from error
  return Extractor(pathlib.Path(name).name, functions.fingerprint(name), features)


def of_classifier(trained: Trained, name: str) -> Extractor:
  """What a classifier's last layer sees of clean images, at t = 0, and its logits.

  Args:
    trained: the classifier.
    name: what it was called by, for messages.

  Raises:
    UsageError: it is no classifier, or its last layer is not called `out`.
  """
  network = trained.network
  if not network.classifies:
    raise UsageError(f'{name} holds a {type(network.module).__name__}, not a classifier: features '
                     'come from classifiers')

  def function(params, images):
    if images.shape[1:] != network.image_shape:
      raise UsageError(f'the images are {images.shape[1:]} (H, W, C), the classifier {name} is '
                       f'for {network.image_shape}')
    time = network.diffusion.schedule.network_time(jnp.zeros(len(images), jnp.int32))
    return last_layer(network.module, params, to_float(images), time)
  return Extractor(f'classifier {pathlib.Path(name).name}, step {trained.step}, {trained.weights}',
                   inception_weights.fingerprint(trained.params),
                   over_devices(function, trained.params), num_classes=network.num_classes)


def last_layer(model: nn.Module, params: Any, x: Array, t: Array) -> Features:
  """What comes into the layer that makes a classifier's logits, f32[B D], and the logits.

  That layer is the last one called `out`.

  Raises:
    UsageError: there is none.
  """
  seen = []

  def watch(call, args, kwargs, context):
    if context.module.name == 'out' and context.method_name == '__call__':
      seen.append(args[0])
    return call(*args, **kwargs)

  with nn.intercept_methods(watch):
    logits = model.apply({'params': params}, x, t)
  if not seen:
    raise UsageError(f'{type(model).__name__} has no layer called out: give that name to its last '
                     'layer, which makes the logits, and features are what comes into it')
  h = seen[-1].astype(jnp.float32)
  # The adaptive pool keeps two axes of length 1.
  return Features(h.reshape(len(h), -1), logits=logits.astype(jnp.float32))
