"""Running a solver: the one `lax.scan`, a key per image, and jobs of many images.

    denoiser = GuidedNetwork(network, diffusion)
    sampler = Sampler(denoiser, solvers.ddim(), descend(diffusion.schedule), (64, 64, 3))
    x = sampler(params, image_keys(jax.random.key(0), np.arange(16)), labels)

Image i of a job is a function of (seed, i, label) alone: not of the batch it is made in.
"""

import dataclasses
from typing import Any, Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.devices import target, xla_flags
from adm_jax.devices.narrowing import read_dtypes
from adm_jax.devices.sharding import not_before, place_batch, round_up, tracing_for
from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.process.diffusion import Denoiser, Diffusion, denoiser
from adm_jax.sampling.guidance import distilled
from adm_jax.sampling.guidance.base import Bound, Context
from adm_jax.sampling.guidance.dynamic_threshold import clipped
from adm_jax.sampling.solvers import Solver, num_evaluations
from adm_jax.sampling.steps import Step

Array = jax.Array
Noise = Callable[[Array], Array]  # index of a step, i32 -> standard normal [B H W C]

# Streams of one image's key.
_START, _STEPS = 0, 1


def image_keys(key: Array, index: Array) -> Array:
  """key[B]: the key of each image of a job; `index` i32[B] counts from 0 through the whole job."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def normal_each(keys: Array, shape: tuple[int, ...]) -> Array:
  """Standard normal f32[B *shape], each image's from its own key of key[B]."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _stream(keys: Array, data: Array | int) -> Array:
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def initial_noise(keys: Array, shape: tuple[int, int, int]) -> Array:
  """x_T, f32[B H W C], for `keys` key[B] and `shape` (H, W, C)."""
  return normal_each(_stream(keys, _START), shape)


def noise_from_keys(keys: Array, shape: tuple[int, int, int]) -> Noise:
  """The noise of each step: index -> f32[B H W C], an independent draw for each index."""
  streams = _stream(keys, _STEPS)
  return lambda index: normal_each(_stream(streams, index), shape)


def sample(solver: Solver, denoise: Denoiser, steps: Step, x: Array, noise: Noise, *,
           keep: Callable | None = None) -> tuple[Array, Any]:
  """Runs `solver` along `steps` in one `lax.scan`.

  Args:
    solver: the method.
    denoise: the model, guided or not.
    steps: where to go, with a leading axis of S (`steps.descend`, `steps.ascend`).
    x: [B H W C] at the first step's noise level.
    noise: fresh noise for a step's index.
    keep: what to return of each `Prediction`, stacked along S: `lambda p: p.x0` gives
      f32[S B H W C].

  Returns:
    (x [B H W C] after the last step, what was kept or None).
  """
  (x, _), kept = scan_steps(solver, denoise, steps, (x, solver.init(x)), noise, keep=keep)
  return x, kept


def scan_steps(solver: Solver, denoise: Denoiser, steps: Step, carry: tuple[Array, Any],
               noise: Noise, *, keep: Callable | None = None) -> tuple[tuple[Array, Any], Any]:
  """`sample` for a part of a run: takes and returns the carry (x, the solver's memory)."""
  def body(carry, step):
    x, memory = carry
    x, memory, prediction = solver.step(denoise, x, memory, step, noise(step.index))
    return (x, memory), None if keep is None else keep(prediction)
  return jax.lax.scan(body, carry, steps)


def remembering_x0(solver: Solver) -> Solver:
  """`solver`, with the latest predicted x_0 [B H W C] beside its memory: (memory, x_0).

  Keeping one image in the carry costs no memory; stacking all of a run's would.
  """
  def step(denoise, x, memory, step, noise):
    x, inner, prediction = solver.step(denoise, x, memory[0], step, noise)
    return x, (inner, prediction.x0), prediction
  return solver._replace(init=lambda x: (solver.init(x), jnp.zeros_like(x)), step=step)


@dataclasses.dataclass(frozen=True, eq=False)
class GuidedNetwork:
  """What a `Sampler` needs of networks: (params, labels, low_res) -> Denoiser.

  `params` is {'model': ..., ROLE: ..., 'scales': {ROLE: Scales}}, weights and scales of guidance by
  its roles; `labels` i32[B], or None where nothing has classes; `low_res`
  f32[B h w C] in [-1, 1], or None, is what an upsampler enlarges.

  Attributes:
    network: what makes images; it gets the labels if it has classes.
    diffusion: the (respaced) process to sample; the sampler's steps must be its schedule's.
    guidance: folded in order, the first next to the network.
    clip: see `diffusion.predict`; where guidance extrapolates, what comes of it is clipped, not
      each prediction.
  """
  network: Network
  diffusion: Diffusion
  guidance: tuple[Bound, ...] = ()
  clip: bool = True

  @property
  def num_classes(self) -> int | None:
    """How many labels there are to choose from; None if labels have no effect."""
    networks = [self.network, *(bound.trained.network for bound in self.guidance if bound.trained)]
    counts = [network.num_classes for network in networks if network.num_classes is not None]
    return counts[0] if counts else None

  def __call__(self, params: Any, labels: Array | None, low_res: Array | None = None) -> Denoiser:
    clip = self.clip and not any(bound.replaces_clipping for bound in self.guidance)
    told = params.get('scales', {}).get(distilled.ROLE)
    extrapolating = [i for i, bound in enumerate(self.guidance) if bound.extrapolates]

    def conditional(labels):
      def evaluate_at(t):
        def evaluate(x, time):
          scale = (None if told is None
                   else jnp.broadcast_to(told.at(t, x).reshape(-1), x.shape[:1]))
          return self.network.apply(params['model'], x, time, labels, low_res=low_res, scale=scale)
        return evaluate

      def denoise(x, t):
        return denoiser(self.diffusion, evaluate_at(t), clip=clip and not extrapolating)(x, t)
      return denoise

    schedule = self.diffusion.schedule
    for i, bound in enumerate(self.guidance):
      conditional = bound.guide(conditional, Context(
          params.get(bound.role), params.get('scales', {}).get(bound.role), low_res, schedule))
      if clip and extrapolating and i == extrapolating[-1]:
        conditional = clipped(conditional, schedule)
    return conditional(labels)

  def read_dtypes(self, params: Any) -> Any:
    """In which dtype the networks and their guidance read each array of `params`.

    `params` converted to these, once, makes the same images, and no step converts it again.
    """
    def of_rows(*shape, dtype=jnp.float32):
      return jax.ShapeDtypeStruct((1, *shape), dtype)
    labels = None if self.num_classes is None else of_rows(dtype=jnp.int32)
    low_res = self.network.low_res_shape and of_rows(*self.network.low_res_shape)

    def evaluate(params, labels, low_res, x, t):
      return self(params, labels, low_res)(x, t)
    return read_dtypes(evaluate, params, labels, low_res, of_rows(*self.network.image_shape),
                       jax.ShapeDtypeStruct((), jnp.int32))


def divide(num_steps: int, most: int) -> int:
  """The largest number of equal chunks, at most `most`, that `num_steps` falls into."""
  if most < 1 or num_steps < 1:
    raise UsageError(f'{num_steps} steps cannot be run in {most} chunks: give at least 1 of each')
  return max(chunks for chunks in range(1, min(most, num_steps) + 1) if num_steps % chunks == 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
  """schedule x prediction x guidance x solver: everything about a sampling run but the weights.

  Compiled once for each batch size. Without `progress` a run is one `jit` of one scan; with it, the
  same scan in a few equal chunks, between which the host may draw a progress bar.

  Attributes:
    denoiser: (params, labels) -> Denoiser, or (params, labels, low_res) for an upsampler; `params`
      is any pytree, `labels` i32[B] or None. If it has an attribute `num_classes`, labels are
      checked against it.
    solver: the method.
    steps: where it goes.
    shape: (H, W, C) of an image.
    mesh: of the devices that share a batch (`sharding.mesh`), or None for JAX's default device.
      Their number must divide the batch; `params` must lie on the same devices.
    program: `advance`, compiled, with the settings that its devices' compiler is to have.
  """
  denoiser: Callable[..., Denoiser]
  solver: Solver
  steps: Step
  shape: tuple[int, int, int]
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    where = target.current() if self.mesh is None else target.of(self.mesh.devices.flat[0])
    object.__setattr__(self, 'program', jax.jit(
        self.advance, donate_argnums=1, compiler_options=xla_flags.of_sampling(where)))
    object.__setattr__(self, '_start', jax.jit(lambda keys: initial_noise(keys, self.shape)))

  @property
  def num_steps(self) -> int:
    return len(self.steps.t)

  @property
  def num_evaluations(self) -> int:
    """How often a run asks the denoiser; at least `num_steps`."""
    return num_evaluations(self.solver, self.steps)

  def advance(self, params, carry, steps, keys, labels, low_res=None):
    """The pure function that is compiled: some of the steps, from carry to carry."""
    given = (labels,) if low_res is None else (labels, low_res)

    def denoise(x, t):
      return self.denoiser(not_before(x, params), *given)(x, t)
    with tracing_for(self.mesh):
      carry, _ = scan_steps(remembering_x0(self.solver), denoise, steps, carry,
                            noise_from_keys(keys, self.shape))
    return carry

  def __call__(self, params: Any, keys: Array, labels: Array | None = None, *,
               x: Array | None = None, low_res: Array | None = None, chunks: int = 1,
               progress: Callable[[int], None] | None = None) -> Array:
    """Samples a batch.

    Args:
      params: what `denoiser` takes.
      keys: key[B], see `image_keys`.
      labels: i32[B], or None.
      x: [B H W C] to start from, instead of noise.
      low_res: f32[B h w C] in [-1, 1], for an upsampler.
      chunks: run the scan in at most this many equal chunks.
      progress: called with the number of steps done since the last call.

    Returns:
      f32[B H W C].
    """
    for x, _ in self.progressive(params, keys, labels, x=x, low_res=low_res, chunks=chunks):
      if progress is not None:
        jax.block_until_ready(x)
        progress(self.num_steps // divide(self.num_steps, chunks))
    return x

  def progressive(self, params: Any, keys: Array, labels: Array | None = None, *,
                  x: Array | None = None, low_res: Array | None = None,
                  chunks: int = 10) -> Iterator[tuple[Array, Array]]:
    """Yields (x, the predicted x_0), both f32[B H W C], after each of the chunks."""
    labels = check_labels(labels, len(keys), getattr(self.denoiser, 'num_classes', None))
    keys, labels, low_res, x = self._place((keys, labels, low_res, x))
    # A copy: the carry is donated to the compiled function.
    x = self._start(keys) if x is None else jnp.array(x)
    # Placed as the compiled function returns it, which is then compiled once for all chunks.
    carry = self._place((x, remembering_x0(self.solver).init(x)))
    length = self.num_steps // divide(self.num_steps, chunks)
    for begin in range(0, self.num_steps, length):
      steps = jax.tree.map(lambda a: a[begin:begin + length], self.steps)
      carry = self.program(params, carry, steps, keys, labels, low_res)
      x, (_, x0) = carry
      yield jnp.array(x), jnp.array(x0)  # copies, for the same reason

  def _place(self, batch: Any) -> Any:
    return batch if self.mesh is None else place_batch(batch, self.mesh)


def padded(num: int) -> int:
  """The size of the batch that `num` images are sampled in: numbers near it share one program.

  1, 2, 3, 4, 6, 8, 12, 16, since compiling costs more than a few images that are thrown away, and
  then 20, 24, 28, 32, 40, ..., of which less than a fifth is.
  """
  octave = 2 ** ((num - 1).bit_length() - 1) if num > 1 else 1  # of the power of two below num
  return round_up(num, max(1, octave // (2 if num <= 16 else 4)))


def sample_job(sampler: Sampler, params: Any, *, key: Array, num: int, batch_size: int,
               begin: int = 0, end: int | None = None, labels: np.ndarray | None = None,
               x: Callable[[np.ndarray], Array] | None = None,
               low_res: Callable[[np.ndarray], Array] | None = None, chunks: int = 1,
               progress: Callable[[int], None] | None = None,
               finish: Callable[[Array], Any] = lambda images: images) -> Iterator[Any]:
  """Makes images begin .. end - 1 of a job, batch by batch, with one compiled program.

  Args:
    sampler: the run.
    params: its weights.
    key: of the job; image i's is `image_keys(key, i)`.
    num: how many images the whole job has.
    batch_size: how many at once, but no more than `padded(num)`, rounded up to a multiple of the
      devices; the last batch is padded, and the padding dropped.
    begin: the first image to make.
    end: behind the last one; None: num.
    labels: i32[num], or None.
    x: what to start from instead of noise: indices i64[B], rising, -> f32[B H W C].
    low_res: what an upsampler enlarges: indices i64[B], rising, -> f32[B h w C] in [-1, 1].
    chunks: see `Sampler`.
    progress: called with the number of image-steps done since the last call.
    finish: makes of a batch f32[B H W C] what is wanted of it, before the padding goes: what it
      compiles is compiled once.

  Yields:
    f32[B H W C], or what `finish` made of it; all batches but the last have the same size.

  Raises:
    UsageError: a label that the model does not know, or a number of them other than `num`.
  """
  if num < 1 or batch_size < 1:
    raise UsageError(f'num={num}, batch_size={batch_size}: give at least 1 of each')
  labels = check_labels(labels, num, getattr(sampler.denoiser, 'num_classes', None))
  num_devices = 1 if sampler.mesh is None else sampler.mesh.size
  batch_size = round_up(min(batch_size, padded(num)), num_devices)
  end = num if end is None else end
  for first in range(begin, end, batch_size):
    count = min(batch_size, end - first)
    # Padding asks for nothing from `end` on, which may not be there yet.
    index = np.minimum(np.arange(first, first + batch_size), end - 1)
    def report(steps, count=count):
      if progress is not None:
        progress(steps * count)
    images = sampler(params, image_keys(key, index), None if labels is None else labels[index],
                     x=None if x is None else x(index),
                     low_res=None if low_res is None else low_res(index), chunks=chunks,
                     progress=report)
    yield finish(images)[:count]


def check_labels(labels: Any, num: int, num_classes: int | None) -> np.ndarray | None:
  """Labels as i32[num], once they are all in [0, num_classes); None stays None.

  JAX would not complain: an index beyond a table's end gives NaN there, and no guidance at all in a
  classifier's gradient.

  Raises:
    UsageError: another number of labels than of images, one that the model does not know, or none
      where it needs them.
  """
  if labels is None:
    if num_classes is not None:
      raise UsageError(f'the model has {num_classes} classes: give a label for each image')
    return None
  labels = np.asarray(labels)
  if labels.dtype.kind not in 'iu':
    raise UsageError(f'labels are {labels.dtype}: give whole numbers')
  if labels.shape != (num,):
    raise UsageError(f'labels of shape {labels.shape} for {num} images: give one per image')
  wrong = labels[(labels < 0) | (labels >= (np.inf if num_classes is None else num_classes))]
  if wrong.size:
    rule = ('labels count from 0' if num_classes is None
            else f'the model has {num_classes} classes, 0 to {num_classes - 1}')
    raise UsageError(f'label {wrong[0]} is out of range: {rule}')
  return labels.astype(np.int32)
