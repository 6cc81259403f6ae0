"""Which timesteps a training batch is noised to, with the weights that keep the loss unbiased.

Like an optax transformation, a sampler is a set of pure functions around a state that lives in the
train state: it is checkpointed, and is the same on every device.
"""

import dataclasses
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError

Array = jax.Array


class TimestepSampler(NamedTuple):
  """A distribution over timesteps that may follow the losses.

  Attributes:
    num_steps: T of the process whose timesteps it draws.
    init: () -> state.
    sample: (state, keys key[B]) -> (t i32[B], weights f32[B]); weights are 1 / (T p(t)), so that
      the mean of weight x loss estimates the mean over uniform t. Each t depends on its key alone.
    update: (state, t i32[B], losses f32[B]) -> state; with the losses of the whole global batch.
  """
  num_steps: int
  init: Callable[[], Any]
  sample: Callable[[Any, Array], tuple[Array, Array]]
  update: Callable[[Any, Array, Array], Any]


def uniform(num_steps: int) -> TimestepSampler:
  """Every timestep is equally likely: ADM's choice.

  Args:
    num_steps: T of the process.
  """
  def sample(state, keys):
    del state
    t = jax.vmap(lambda key: jax.random.randint(key, (), 0, num_steps))(keys)
    return t, jnp.ones(t.shape)
  return TimestepSampler(num_steps, init=lambda: (), sample=sample,
                         update=lambda state, t, losses: state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossHistory:
  """The latest losses of each timestep."""
  losses: Array  # f32[T K]: a ring of the latest K per timestep
  counts: Array  # i32[T]: how many were ever written


def loss_second_moment(num_steps: int, *, history: int = 10,
                       uniform_probability: float = 0.001) -> TimestepSampler:
  """p(t) proportional to sqrt(E[loss_t^2]) (IDDPM eq. 18), for the objectives on the bound.

  Uniform until every timestep has its losses.

  Args:
    num_steps: T of the process.
    history: of how many of a timestep's latest losses the mean is taken.
    uniform_probability: what is spread evenly all the same, so that no timestep is forgotten.

  Raises:
    UsageError: no history, or no such share.
  """
  if history < 1:
    raise UsageError(f'history={history}: give at least 1')
  if not 0 < uniform_probability <= 1:
    raise UsageError(f'uniform_probability={uniform_probability}: give a share above 0, at most 1')

  def init():
    return LossHistory(jnp.zeros((num_steps, history)), jnp.zeros(num_steps, jnp.int32))

  def sample(state, keys):
    p = second_moment_weights(state, uniform_probability)
    p = p / p.sum()
    u = jax.vmap(jax.random.uniform)(keys)
    cumulative = jnp.cumsum(p)
    # Scaled by the last entry, which rounding leaves just off 1, so that no u falls beyond it.
    t = jnp.searchsorted(cumulative, u * cumulative[-1], side='right')
    t = jnp.minimum(t, num_steps - 1).astype(jnp.int32)
    return t, 1 / (num_steps * p[t])

  def update(state, t, losses):
    # Entry i of a batch is the `earlier[i]`-th of its timestep; only the latest K are kept.
    same = t[:, None] == t[None, :]
    earlier = jnp.tril(same, -1).sum(axis=1)
    later = jnp.triu(same, 1).sum(axis=1)
    slot = (state.counts[t] + earlier) % history
    row = jnp.where(later < history, t, num_steps)  # out of range: dropped
    return LossHistory(state.losses.at[row, slot].set(losses, mode='drop'),
                       state.counts.at[t].add(1))

  return TimestepSampler(num_steps, init, sample, update)


def second_moment_weights(state: LossHistory, uniform_probability: float) -> Array:
  """The unnormalized probability of each timestep, f32[T]."""
  num_steps, history = state.losses.shape
  root = jnp.sqrt((state.losses ** 2).mean(axis=1))
  weights = (1 - uniform_probability) * root / root.sum() + uniform_probability / num_steps
  return jnp.where((state.counts >= history).all(), weights, jnp.ones(num_steps))
