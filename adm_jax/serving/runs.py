"""A visitor's runs, part by part of their scan: what `adm sample` makes, and looks on the way.

A run is the same program with the same arguments as `SamplingJob` starts, so that its images are
the same to the bit.
"""

import base64
import dataclasses
import io
import time
from typing import Any, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_uint8
from adm_jax.sampling import initial_states
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.sampling.sampler import divide, image_keys
from adm_jax.serving.judging import Judges
from adm_jax.serving.models import NONE
from adm_jax.serving.pipelines import Pipelines
from adm_jax.serving.words import Words

Array = jax.Array
PARTS = 10  # of a run, at most: as `Pipeline.batches` has them
_PREVIEW_EVERY = 0.1  # seconds


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

  def run(self, runs: Sequence[Words], wanted: Wanted) -> Iterator[Event]:
    """Makes the images of each run in turn; nothing is computed between two events."""
    for number, words in enumerate(runs):
      for event in self._run(words, wanted):
        yield Event(event.name, {'run': number, **event.data})

  def _run(self, words: Words, wanted: Wanted) -> Iterator[Event]:
    adm = self._pipelines(words)
    most = adm.check_batch_size(None, words.num)
    if most < words.num:
      raise UsageError(f'{words.num} images of {words.name}: at most {most} are shown at once')
    size = sharding.round_up(most, adm.sampler.mesh.size)
    is_new = self._pipelines.is_new(words, size, adm)
    if is_new:
      yield Event('compiling', {})
    judge = self._judges(words.model) if wanted.score or wanted.arrows else None
    index = np.minimum(np.arange(size), words.num - 1)
    asked = np.array(words.labels(), np.int32)[index] if words.classes else None
    labels = asked if words.takes_classes else None
    begin = told = time.perf_counter()
    seconds = 0.0
    parts = adm.sampler.progressive(
        adm.params, image_keys(adm.key(words.seed), index), labels,
        x=self._start(words, adm, index), chunks=PARTS)
    steps = adm.sampler.num_steps
    for count, (x, x0) in enumerate(parts, 1):
      jax.block_until_ready((x, x0))
      seconds += time.perf_counter() - begin
      done = count * (steps // divide(steps, PARTS))
      looks = {} if judge is None else judge.looks(adm, x, asked, done, words.num, wanted.arrows)
      if wanted.film:
        looks |= {'x': _pngs(x, words.num), 'x0': _pngs(x0, words.num)}
      if done >= steps:
        yield Event('image', {
            'images': _finished(words, x), **looks, 'ms': 1000 * seconds, 'compiled': is_new,
            'step': done, 'steps': steps, 'evaluations': adm.sampler.num_evaluations,
            'command': words.command(), 'python': words.python()})
      elif looks or time.perf_counter() - told >= _PREVIEW_EVERY:
        yield Event('part', {'step': done, 'steps': steps, 'x0': _pngs(x0, words.num), **looks})
        told = time.perf_counter()
      else:
        yield Event('', {})  # nothing to tell, but a newer request may come in between
      begin = time.perf_counter()

  def _start(self, words: Words, adm: Pipeline, index: np.ndarray) -> Array | None:
    """x [B H W C] to start from, or None."""
    if words.until is not None:
      ends = (initial_states.noise_of_seed(adm, seed) for seed in (words.seed, words.until))
      return initial_states.between(*ends, words.num)(index)
    if words.pixels is None:
      return None
    image = np.frombuffer(words.pixels, np.uint8).reshape(1, *adm.sampler.shape)
    plain = self._pipelines(dataclasses.replace(words, guide=NONE))
    origin = None if plain.num_classes is None else np.array([words.origin], np.int32)
    return initial_states.encoded(plain, image, origin)(index)


def _finished(words: Words, x: Array) -> list[str]:
  if not jnp.isfinite(x).all():  # as 8 bits NaN would be black
    raise UsageError(f'the images are not finite: scale {words.scale:g} is too strong')
  return _pngs(x, words.num)


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
