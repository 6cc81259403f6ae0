"""A visitor's runs, part by part of their scan: what `adm sample` makes, and looks on the way.

A run is the same program with the same arguments as `SamplingJob` starts, so that its images are
the same to the bit.
"""

import base64
import collections
import dataclasses
import io
import time
from typing import Any, Generator, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_uint8
from adm_jax.sampling import initial_states
from adm_jax.sampling.initial_states import Start
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.sampling.sampler import divide, image_keys
from adm_jax.serving.judging import Judges
from adm_jax.serving.models import NONE
from adm_jax.serving.pipelines import Pipelines
from adm_jax.serving.words import Words

Array = jax.Array
PARTS = 10  # of a run, at most: as `Pipeline.batches` has them
_PREVIEW_EVERY = 0.1  # seconds
_MOST_CODES = 16  # of images that visitors gave, each as large as a batch on all devices


class Event(NamedTuple):
  """What a visitor is told: a name, and JSON values."""
  name: str
  data: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a visitor wants to see beside images.

  Attributes:
    film: x_0 and x_t after every part, rather than a look at x_0 from time to time.
    score: what the classifier believes of the asked class, after every part.
    arrows: its gradient by the image.
  """
  film: bool = False
  score: bool = False
  arrows: bool = False


class Studio:
  """All networks and compiled programs; to be used by one thread."""

  def __init__(self):
    self._pipelines, self._judges = Pipelines(), Judges()
    self._codes: collections.OrderedDict[tuple, Array] = collections.OrderedDict()

  def run(self, runs: Sequence[Words], wanted: Wanted) -> Iterator[Event]:
    """Makes the images of each run in turn; nothing is computed between two events."""
    for number, words in enumerate(runs):
      for event in self._run(words, wanted):
        yield Event(event.name, {'run': number, **event.data})

  def _run(self, words: Words, wanted: Wanted) -> Iterator[Event]:
    if not self._pipelines.has(words):
      yield Event('loading', {'model': words.name})
    adm = self._pipelines(words)
    most = adm.check_batch_size(None, words.num)
    if most < words.num and wanted != Wanted():
      raise UsageError(f'a film, scores and the pull are of one batch, of {words.name} at most '
                       f'{most} images: ask for fewer than {words.num}')
    size = sharding.round_up(most, adm.sampler.mesh.size)
    is_new = self._pipelines.is_new(words, size, adm)
    if is_new:
      yield Event('compiling', {})
    judge = self._judges(words.model) if wanted.score or wanted.arrows else None
    start = yield from self._start(words, adm)
    asked = np.array(words.labels(), np.int32) if words.classes else None
    steps, images, told, seconds = adm.sampler.num_steps, [], time.perf_counter(), 0.0
    all_steps = steps * -(-words.num // size)
    for first in range(0, words.num, size):
      count = min(size, words.num - first)
      index = np.minimum(np.arange(first, first + size), words.num - 1)
      of_batch = None if asked is None else asked[index]
      begin = time.perf_counter()
      parts = adm.sampler.progressive(
          adm.params, image_keys(adm.key(words.seed), index),
          of_batch if words.takes_classes else None,
          x=None if start is None else start(index), chunks=PARTS)
      for number, (x, x0) in enumerate(parts, 1):
        jax.block_until_ready((x, x0))
        seconds += time.perf_counter() - begin
        self._pipelines.ran(words, size, adm)
        _check_finite(words, x)
        done = number * (steps // divide(steps, PARTS))
        looks = {} if judge is None else judge.looks(adm, x, of_batch, done, count, wanted.arrows)
        if wanted.film:
          looks |= {'x': _pngs(x, count), 'x0': _pngs(x0, count)}
        if done >= steps:
          images += _pngs(x, count)
        if len(images) == words.num:
          yield Event('image', {
              'images': images, **looks, 'ms': 1000 * seconds, 'compiled': is_new,
              'step': all_steps, 'steps': all_steps, 'evaluations': adm.sampler.num_evaluations,
              'command': words.command(), 'python': words.python()})
        elif looks or time.perf_counter() - told >= _PREVIEW_EVERY:
          shown = images if done >= steps else images + _pngs(x0, count)
          yield Event('part', {'step': steps * (first // size) + done, 'steps': all_steps,
                               'x0': shown, **looks})
          told = time.perf_counter()
        else:
          yield Event('', {})  # nothing to tell, but a newer request may come in between
        begin = time.perf_counter()

  def _start(self, words: Words, adm: Pipeline) -> Generator[Event, None, Start | None]:
    """Returns what says where images start: indices i64[B] -> x [B H W C]; or None."""
    if words.until is not None:
      ends = (initial_states.noise_of_seed(adm, seed) for seed in (words.seed, words.until))
      return initial_states.between(*ends, words.num)
    if words.pixels is None:
      return None
    plain = dataclasses.replace(words, guide=NONE)
    key = plain.name, plain.steps, words.pixels, words.origin
    if key not in self._codes:
      yield from self._encode(key, plain)
    self._codes.move_to_end(key)
    code = self._codes[key]  # which may be dropped for another visitor's
    return lambda index: code

  def _encode(self, key: tuple, words: Words) -> Iterator[Event]:
    """Keeps the code of an image, which all guidance and every scale start from."""
    adm, encoder = self._pipelines(words), self._pipelines.encoder(words)
    image = np.frombuffer(words.pixels, np.uint8).reshape(1, *adm.sampler.shape)
    origin = None if adm.num_classes is None else np.array([words.origin], np.int32)
    index = np.zeros(sharding.round_up(1, adm.sampler.mesh.size), int)
    for x, _ in initial_states.encoding(adm, encoder, image, origin, index, chunks=PARTS):
      jax.block_until_ready(x)
      yield Event('', {})
    self._codes[key] = x
    while len(self._codes) > _MOST_CODES:
      self._codes.popitem(last=False)


def _check_finite(words: Words, x: Array) -> None:
  if not jnp.isfinite(x).all():  # as 8 bits NaN would be black
    raise UsageError(f'the images are not finite: scale {words.scale:g} is too strong')


def _pngs(x: Array, num: int) -> list[str]:
  """The first images of f32[B H W C] as PNG in base64."""
  return [png(image) for image in np.asarray(to_uint8(x))[:num]]


def png(image: np.ndarray) -> str:
  """uint8[H W C] as PNG in base64."""
  encoded = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, 'PNG')
  return base64_of(encoded.getvalue())


def base64_of(data: bytes) -> str:
  return base64.b64encode(data).decode()
