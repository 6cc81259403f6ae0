"""Tasks that distill a guided network into a student of few steps.

Stage 1, `guided`: one evaluation of the student for a guided one of its teacher, at any scale of a
range (Meng et al. 2022). Stage 2, `consistency`: few steps for many (`process.distillation`);
`progressive` is the older way to the same, a halving of the steps at a time.
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_float
from adm_jax.networks import Network, check_source
from adm_jax.process import continuous, distillation
from adm_jax.process.diffusion import FixedSmall, TemperedEps, V
from adm_jax.sampling.sampler import normal_each
from adm_jax.training import teachers
from adm_jax.training.tasks import Task
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

Array = jax.Array

# Streams of an example's key beside its noise.
_SCALE, _JITTER = 2, 3


def guided(network: Network, teacher: str | Trained, classifier: str | Trained | None = None,
           weaker: str | Trained | None = None) -> Task:
  """Teaches a student to predict in one evaluation what its guided teacher does.

  The scale of each example is drawn evenly from the student's range. The loss is
  `process.distillation.guided_loss`.

  Args:
    network: the student, see `networks.student`.
    teacher: what makes images, see `pretrained.load`.
    classifier: guides it by its gradient; without, and without `weaker`, it guides itself.
    weaker: guides it by autoguidance.

  Raises:
    UsageError: they do not go together.
  """
  _check_student(network)
  taught_by = teachers.described(teacher, classifier, weaker, _dtype(network))
  _check_pair(network, taught_by.network, taught_by.num_classes)
  schedule = network.diffusion.schedule

  def terms(params, frozen, examples, dropout_keys):
    x0, t, y = to_float(examples['image']), examples['t'], examples['label']
    scale = _scales(network, examples)
    here = continuous.at_step(schedule, t)
    z = here.alpha * x0 + here.sigma * normal_each(examples['key'], x0.shape[1:])
    wanted = jax.lax.stop_gradient(taught_by.ask(frozen, y, scale)(z, t).x0)
    output = network.apply(params, z, schedule.network_time(t), y, scale=scale,
                           dropout_keys=dropout_keys)
    return {'loss': distillation.guided_loss(_x0(network, output, z, here), wanted, here)}

  return Task(network, terms, lambda source: check_source(network, source), taught_by.shapes,
              taught_by.weights)


def consistency(network: Network, teacher: str | Trained, anneal_steps: int,
                first: int = 64, last: int = 1280, adjusted: bool = False,
                power: float = 1.0) -> Task:
  """Teaches a student of stage 1 to make images in few steps: multistep consistency distillation.

  Args:
    network: the student; `network.steps` says in how many.
    teacher: a student of stage 1, see `guided`, whose weights the run is to start from.
    anneal_steps: training steps in which the teacher's steps rise from `first` to `last`.
    first: the teacher's steps from noise to data at the start.
    last: and in the end.
    adjusted: take the teacher's steps with the noise of aDDIM, for the variance that an image that
      is not there has on the average.
    power: of the weights of the loss, see `process.distillation.consistency_loss`.

  Raises:
    UsageError: the teacher is no such student, or another number of steps is asked for.
  """
  num_segments, trained = _of_stage_1(network, teacher)
  if anneal_steps < 1 or not num_segments <= first <= last:
    raise UsageError(f'anneal_steps={anneal_steps}, first={first}, last={last}: give at least 1, '
                     f'{num_segments} and first')
  schedule = network.diffusion.schedule

  def terms(params, frozen, examples, dropout_keys):
    z_of, guess = _student(network, examples)
    steps = distillation.teacher_steps(examples['step'][0] / anneal_steps, first, last)
    at = distillation.place(_fraction(network, examples), num_segments,
                            jnp.round(steps / num_segments))
    here, z = continuous.level(schedule, at.here), z_of(at.here)
    variance = distillation.variance_without_data(here) if adjusted else 0.0
    wanted = distillation.target(guess(params), guess(frozen), z, at, schedule, variance)
    return {'loss': distillation.consistency_loss(
        guess(params, dropout_keys, clip=False)(z, at.here), wanted, here, power)}

  return Task(network, terms, lambda source: check_source(network, source), trained.params,
              lambda: pretrained.trained(teacher).params)


def progressive(network: Network, teacher: str | Trained) -> Task:
  """Teaches a student to make one step of two of its teacher's: progressive distillation.

  Args:
    network: the student; `network.steps` says in how many steps it is to make images.
    teacher: a student of stage 1, or of twice as many steps, whose weights the run is to start
      from.

  Raises:
    UsageError: the teacher is no such student, or another number of steps is asked for.
  """
  num_segments, trained = _of_stage_1(network, teacher, halving=True)
  schedule = network.diffusion.schedule

  def terms(params, frozen, examples, dropout_keys):
    z_of, guess = _student(network, examples)
    at = distillation.two_steps(_fraction(network, examples), num_segments)
    here, z = continuous.level(schedule, at.here), z_of(at.here)
    wanted = distillation.target(guess(frozen), guess(frozen), z, at, schedule)
    return {'loss': distillation.truncated_loss(
        guess(params, dropout_keys, clip=False)(z, at.here), wanted, here)}

  return Task(network, terms, lambda source: check_source(network, source), trained.params,
              lambda: pretrained.trained(teacher).params)


def _fraction(network: Network, examples: dict) -> Array:
  """Where in the process an example lies, f32[B] in [0, 1): its t, and evenly drawn beside it."""
  jitter = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _JITTER)))(
      examples['key'])
  fraction = (examples['t'] + jitter) / network.diffusion.schedule.num_steps
  return jnp.minimum(fraction, np.nextafter(np.float32(1), np.float32(0)))


def _scales(network: Network, examples: dict) -> Array:
  """A guidance scale for each example, f32[B], evenly drawn from the student's range."""
  low, high = network.scales
  return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _SCALE), minval=low,
                                                 maxval=high))(examples['key'])


def _student(network: Network, examples: dict) -> tuple[Callable, Callable]:
  """What stage 2 needs of a batch.

  Returns:
    (z_of, guess): z_of maps times f32[B] to noised images f32[B H W C]; guess makes of (params,
    dropout_keys=None, clip=True) what predicts x_0.
  """
  schedule, y, scale = network.diffusion.schedule, examples['label'], _scales(network, examples)
  x0 = to_float(examples['image'])
  eps = normal_each(examples['key'], x0.shape[1:])

  def z_of(u):
    there = continuous.level(schedule, u)
    return there.alpha * x0 + there.sigma * eps

  def guess(params, dropout_keys=None, clip=True):
    def predict(z, u):
      there = continuous.level(schedule, u)
      output = network.apply(params, z, continuous.network_time(schedule, u), y, scale=scale,
                             dropout_keys=dropout_keys)
      x0 = _x0(network, output, z, there)
      return jnp.clip(x0, -1, 1) if clip else x0
    return predict
  return z_of, guess


def _x0(network: Network, output: Array, z: Array, here: continuous.Level) -> Array:
  """The x_0 that a student's output means, f32[B H W C]."""
  v = network.diffusion.mean.v(output.astype(jnp.float32), z, here.alpha, here.sigma)
  return here.alpha * z - here.sigma * v


def _dtype(network: Network) -> str | None:
  """What the student computes in, and so its teacher does."""
  return getattr(network.module, 'dtype', None)


def _check_student(network: Network) -> None:
  if network.scales is None:
    raise UsageError('the network takes no scale: describe a student by networks.student')
  diffusion = network.diffusion
  if not isinstance(diffusion.mean, V | TemperedEps) or diffusion.variance != FixedSmall():
    raise UsageError('a student predicts v, and its variance is fixed: give its diffusion '
                     'mean=TemperedEps, or V, and variance=FixedSmall')


def _check_pair(network: Network, teacher: Network, num_classes: int) -> None:
  for what, ours, its in (('image', network.image_shape, teacher.image_shape),
                          ('schedule', network.diffusion.schedule, teacher.diffusion.schedule),
                          ('classes', network.num_classes, num_classes)):
    if ours != its:
      raise UsageError(f'the student has another {what} than its teacher: give it that of the '
                       'teacher' + (f', {its}' if what != 'schedule' else ''))


def _of_stage_1(network: Network, teacher: str | Trained,
                halving: bool = False) -> tuple[int, Trained]:
  """(N, the teacher) of a stage 2; `halving`: it may take 2 N steps itself."""
  _check_student(network)
  if network.steps is None or len(network.steps) != 1:
    raise UsageError(f'network.steps={network.steps}: say in how many steps the student is to make '
                     'images, as (4,)')
  num_segments, trained = network.steps[0], pretrained.outline(teacher)
  its, name = trained.network, 'the teacher' if isinstance(teacher, Trained) else teacher
  if its.scales is None:
    raise UsageError(f'{name} is no student: distill its guidance first, by distillation.guided')
  if its.steps is not None and not (halving and its.steps == (2 * num_segments,)):
    raise UsageError(f'{name} makes images in {its.steps[0]} steps: give a student of stage 1'
                     + (f', or of {2 * num_segments} steps' if halving else ''))
  _check_pair(network, its, its.num_classes)
  if tuple(its.scales) != tuple(network.scales):
    raise UsageError(f'{name} was taught scales from {its.scales[0]:g} to {its.scales[1]:g}: give '
                     'the student the same')
  # These change no parameters, and a run may change them.
  as_ours = {name: getattr(network.module, name) for name in ('remat', 'attention_implementation')
             if hasattr(network.module, name)}
  if its.having(**as_ours).module != network.module:
    raise UsageError(f'{name} is another network than the student: give the student its module')
  if its.diffusion != network.diffusion:
    raise UsageError(f'{name} predicts {its.diffusion.mean}: give the diffusion of the student the '
                     'same mean')
  return num_segments, trained

