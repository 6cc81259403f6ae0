"""Where a run starts, if not from fresh noise: in the middle, at a code of an image, between two.

Each function here gives a function from indices i64[B] to x [B H W C], the `x` of
`sampler.sample_job`; the values `Noised`, `Encoded` and `Between` are for a `SamplingJob`.
"""

import dataclasses
from typing import Any, Callable, Iterator, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.data.sources import Rows, Source
from adm_jax.devices.sharding import round_up
from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_float
from adm_jax.process.diffusion import q_sample
from adm_jax.sampling import solvers
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.sampling.sampler import Sampler, image_keys, initial_noise, normal_each
from adm_jax.sampling.steps import Step, ascend, descend

Array = jax.Array
Start = Callable[[np.ndarray], Array]


class InitialStates(Protocol):
  """Where the images of a job start.

  Attributes:
    num: how many there are; None for any number.
    one_class: whether all images are of one class.
  """
  num: int | None
  one_class: bool

  def start(self, adm: Pipeline, num: int, labels: np.ndarray | None, seed: int) -> Start:
    """Returns the x of images 0 .. num - 1.

    Raises:
      UsageError: the pipeline cannot start there.
    """

  def describe(self) -> dict[str, Any]:
    """Returns JSON values that say where."""


@dataclasses.dataclass(frozen=True, eq=False)
class Noised:
  """Images noised to the first step of a pipeline whose course begins in the middle (`from_step`).

  Attributes:
    images: a data set of the model's shape.
  """
  images: Source

  one_class = False

  @property
  def num(self) -> int:
    return len(self.images)

  def start(self, adm, num, labels, seed):
    del labels
    _check_images(self.images, adm, num)
    return noised(adm, Rows(self.images), seed)

  def describe(self):
    return {'images': _fingerprint(self.images)}


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """The codes of images, which DDIM decodes again.

  Attributes:
    images: a data set of the model's shape.
  """
  images: Source

  one_class = False

  @property
  def num(self) -> int:
    return len(self.images)

  def start(self, adm, num, labels, seed):
    del seed
    _check_images(self.images, adm, num)
    _check_deterministic(adm, 'codes of images are decoded')
    return encoded(adm, Rows(self.images), labels)

  def describe(self):
    return {'images': _fingerprint(self.images), 'reconstruct': True}


@dataclasses.dataclass(frozen=True, eq=False)
class Between:
  """The way from one x_T to another: of two seeds, or of the codes of two images.

  Attributes:
    first: a seed, or the index of an image.
    last: the same.
    images: a data set of the model's shape; None: seeds.
  """
  first: int
  last: int
  images: Source | None = None

  num = None
  one_class = True

  def start(self, adm, num, labels, seed):
    del seed
    _check_deterministic(adm, 'the way between two images is drawn')
    ends = np.array([self.first, self.last])
    if self.images is None:
      return between(*(noise_of_seed(adm, int(end)) for end in ends), num)
    _check_images(self.images, adm, 1)
    if ends.max() >= len(self.images):
      raise UsageError(f'from image {self.first} to {self.last}: {self.images.name} holds images 0 '
                       f'to {len(self.images) - 1}')
    both = None if labels is None else np.resize(labels, 2)
    return between(*codes(adm, Rows(self.images)[ends], both), num)

  def describe(self):
    return {'images': None if self.images is None else _fingerprint(self.images),
            'interpolate': f'{self.first},{self.last}'}


def _fingerprint(images: Source) -> str:
  """Tells the images from others; of a source that cannot say, its name and number."""
  return images.fingerprint() if hasattr(images, 'fingerprint') else repr(images)


def _check_images(images: Source, adm: Pipeline, num: int) -> None:
  if tuple(images.image_shape) != tuple(adm.sampler.shape):
    raise UsageError(f'{images.name} has images of {tuple(images.image_shape)}, the model makes '
                     f'{tuple(adm.sampler.shape)}: open them with the model\'s size and channels')
  if len(images) < num:
    raise UsageError(f'{images.name} holds {len(images)} images, {num} are asked for: give a '
                     'smaller num, or more images')


def _check_deterministic(adm: Pipeline, why: str) -> None:
  if not adm.sampler.solver.deterministic:
    raise UsageError(f'{why} by a sampler without noise, and {adm.sampler.solver.name} draws some: '
                     'give the solver ddim, with eta 0')


# ---------------------------------------------------------------------------------------------

# A stream of the job's key beside its images' own.
_NOISING = 2**31 - 3


def from_step(t: int, whole: Callable = descend) -> Callable:
  """What replaces `steps.descend` to start at the last of its steps that is at most `t`.

  Args:
    t: in [0, T), a timestep of training.
    whole: what gives all steps of a schedule instead of `steps.descend`.
  """
  def steps(schedule) -> Step:
    if not 0 <= t < schedule.num_train_steps:
      raise UsageError(f'step {t} is out of range: the process was trained on 0 to '
                       f'{schedule.num_train_steps - 1}')
    all_steps = whole(schedule)
    timesteps = schedule.timesteps[np.asarray(all_steps.t)]
    kept = int((timesteps <= t).sum())
    if not kept:
      raise UsageError(f'the respacing keeps no step up to {t}: its first is {timesteps[-1]}')
    return jax.tree.map(lambda leaf: leaf[-kept:], all_steps)
  return steps


def noised(adm: Pipeline, images: np.ndarray, seed: int) -> Start:
  """x_t ~ q(x_t | x_0) of `images` uint8[N H W C], where t is the first step of `adm`'s sampler."""
  t = int(adm.sampler.steps.t[0])
  stream = jax.random.fold_in(adm.key(seed), _NOISING)

  @jax.jit
  def start(x0, keys):
    return q_sample(adm.diffusion.schedule, x0, jnp.full(len(x0), t),
                    normal_each(keys, x0.shape[1:]))
  return lambda index: start(to_float(images[index]), image_keys(stream, index))


def encoded(adm: Pipeline, images: np.ndarray, labels: np.ndarray | None) -> Start:
  """The codes of `images` uint8[N H W C]: DDIM run backwards, up to where `adm` starts.

  Sampling from them by DDIM with eta 0 gives the images again (ADM paper, appendix F).
  """
  encode = encoder(adm)

  def start(index):
    *_, (x, _) = encoding(adm, encode, images, labels, index)
    return x
  return start


def encoder(adm: Pipeline) -> Sampler:
  """Returns DDIM backwards, from an image up to where `adm` starts: what `encoding` runs."""
  # Some spacings, and `from_step`, start below the noisiest step.
  first = int(adm.sampler.steps.t[0])
  steps = jax.tree.map(lambda leaf: leaf[:first], ascend(adm.diffusion.schedule))
  return dataclasses.replace(adm.sampler, solver=solvers.ddim(), steps=steps)


def encoding(adm: Pipeline, encode: Sampler, images: np.ndarray, labels: np.ndarray | None,
             index: np.ndarray, chunks: int = 1) -> Iterator[tuple[Array, Array]]:
  """Yields (x, x_0) after each of the chunks of one batch's encoding; the last x is its code.

  Args:
    adm: whose weights encode.
    encode: `encoder(adm)`, which compiles once.
    images: uint8[N H W C].
    labels: i32[N], or None.
    index: i64[B], those of the images that are encoded.
    chunks: of the scan.
  """
  keys = image_keys(jax.random.key(0), index)  # DDIM draws no noise
  return encode.progressive(adm.params, keys, None if labels is None else labels[index],
                            x=to_float(images[index]), chunks=chunks)


def codes(adm: Pipeline, images: np.ndarray, labels: np.ndarray | None) -> Array:
  """`encoded` of a few images uint8[N H W C] at once: f32[N H W C]."""
  size = adm.sampler.mesh.size
  index = np.resize(np.arange(len(images)), round_up(len(images), size))
  return encoded(adm, images, labels)(index)[:len(images)]


def between(a: Array, b: Array, num: int) -> Start:
  """`num` points from x_T `a` to `b`, both [H W C], ends included."""
  fractions = np.linspace(0, 1, num, dtype=np.float32)
  return lambda index: _on_the_way(a, b, fractions[index])


def slerp(a: Array, b: Array, fraction: Array) -> Array:
  """The point at `fraction` of the great circle from `a` to `b`, arrays of one shape.

  Noise stays noise on this way; on the straight one its variance would sag (Song et al. 2021,
  appendix D.5).
  """
  angle = jnp.arccos(jnp.clip((a * b).sum() / jnp.sqrt((a**2).sum() * (b**2).sum()), -1, 1))
  # Where both point the same way, the circle is a line, and the sine of its angle no divisor.
  line = jnp.sin(angle) < 1e-4
  sine = jnp.where(line, 1, jnp.sin(angle))
  weights = [jnp.where(line, part, jnp.sin(part * angle) / sine) for part in
             (1 - fraction, fraction)]
  return weights[0] * a + weights[1] * b


_on_the_way = jax.jit(jax.vmap(slerp, in_axes=(None, None, 0)))


def noise_of_seed(adm: Pipeline, seed: int) -> Array:
  """x_T f32[H W C] of image 0 of the job with `seed`."""
  return initial_noise(image_keys(adm.key(seed), np.arange(1)), adm.sampler.shape)[0]
