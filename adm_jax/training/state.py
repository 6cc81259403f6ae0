"""Everything that a training run carries from one step to the next, as one pytree."""

from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from adm_jax.errors import UsageError
from adm_jax.process.timestep_samplers import TimestepSampler
from adm_jax.training.tasks import Task

Array = jax.Array
Params = Any


@flax.struct.dataclass
class TrainState:
  """The state after `step` steps."""
  step: Array                # i32: batches seen, whether or not they changed anything
  params: Params
  ema: dict[str, Params]     # rate -> averaged parameters
  opt_state: optax.OptState
  timesteps: Any             # the timestep sampler's
  skipped: Array             # i32: steps with a non-finite loss or gradient, in all
  skipped_in_a_row: Array    # i32: and up to now without a good one between


def init_state(key: Array, task: Task, optimizer: optax.GradientTransformation,
               ema_rates: tuple[float, ...], timestep_sampler: TimestepSampler) -> TrainState:
  """The state before the first step; averages start at the initial parameters."""
  params = task.network.init(key)
  zero = jnp.zeros((), jnp.int32)
  # Copies, since a step donates the whole state and no buffer may be donated twice.
  ema = {str(rate): jax.tree.map(jnp.array, params) for rate in ema_rates}
  return TrainState(step=zero, params=params, ema=ema, opt_state=optimizer.init(params),
                    timesteps=timestep_sampler.init(), skipped=jnp.array(zero),
                    skipped_in_a_row=jnp.array(zero))


class Optimizer(NamedTuple):
  """An optax transformation that can say its learning rate, for reports.

  Attributes:
    init, update: optax's.
    learning_rate: updates made so far, i32 -> the rate of the next one.
    bounded: whether a finite gradient always makes a finite update, so that a step need not look
      at its result before it keeps it.
    num_updates: how many there are before the rate is 0 for good; None: no end of them.
  """
  init: Callable
  update: Callable
  learning_rate: Callable[[Array], Array | float]
  bounded: bool = False
  num_updates: int | None = None


def adamw(learning_rate: float, *, weight_decay: float = 0.0, linear_decay_steps: int | None = None,
          decay_after_step: bool = False, clip_norm: float | None = None, b1: float = 0.9,
          b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
  """AdamW as ADM uses it.

  Args:
    learning_rate: constant, or the start of the decay.
    weight_decay: decoupled, on all parameters alike.
    linear_decay_steps: decay linearly to 0 over so many updates, n of them made: 1 - n / N of the
      rate.
    decay_after_step: let the decay lag one update behind, so that the first two run at the full
      rate. Diffusion training in guided-diffusion does, whose loop lowers the rate after its
      optimizer's step and before it counts the step; its classifier's training, and
      improved-diffusion, lower it before, as this does by default.
    clip_norm: bound on the gradient's global norm.
    b1, b2, eps: Adam's.

  Raises:
    UsageError: a number that no training can have.
  """
  if not 0 < learning_rate < float('inf'):
    raise UsageError(f'learning_rate={learning_rate}: give a number above 0')
  if not 0 <= weight_decay < float('inf'):
    raise UsageError(f'weight_decay={weight_decay}: give 0, for none, or a number above it')
  if linear_decay_steps is not None and linear_decay_steps < 1:
    raise UsageError(f'linear_decay_steps={linear_decay_steps}: give at least 1, or None for a '
                     'constant rate')
  if clip_norm is not None and not clip_norm > 0:
    raise UsageError(f'clip_norm={clip_norm}: give a number above 0, or None for no bound')
  for name, value in (('b1', b1), ('b2', b2)):
    if not 0 <= value < 1:
      raise UsageError(f'{name}={value}: give a number in [0, 1)')
  if not 0 <= eps < float('inf'):
    raise UsageError(f'eps={eps}: give 0 or a number above it')
  rate, num_updates = learning_rate, None
  if linear_decay_steps is not None:
    num_updates = linear_decay_steps + decay_after_step
    on_time = optax.linear_schedule(learning_rate, 0.0, linear_decay_steps)
    rate = (lambda count: on_time(jnp.maximum(count - 1, 0))) if decay_after_step else on_time
  steps = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
  if clip_norm is not None:
    steps = optax.chain(optax.clip_by_global_norm(clip_norm), steps)
  # A finite norm of the gradient leaves its squares finite; an update is then at most rate times
  # 1 / sqrt(1 - b2), and the decay pulls towards 0. No number of steps that anyone takes leads from
  # there to where the norm of the parameters overflows.
  bounded = eps > 0 and b1 ** 2 <= b2 < 1 and learning_rate <= 1e6 and (
      learning_rate * weight_decay <= 1)
  return Optimizer(steps.init, steps.update, rate if callable(rate) else lambda count: rate,
                   bounded, num_updates)
